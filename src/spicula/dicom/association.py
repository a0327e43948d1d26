"""How to come to terms with another DIMSE application (as SCU), and in words why not."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from spicula.core.errors import InputError, OfflineError
from spicula.dicom.dimse import MAX_OBJECT_BYTES, MAX_PDU_BYTES, guards, pynetdicom, shut, syntax_name

PLAIN = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2")
"""Explicit and Implicit VR Little Endian."""


def context(name: str, *syntaxes: str) -> Any:
    """What to propose: a SOP class, in one of the transfer syntaxes (the plain ones if none is given)."""
    return pynetdicom().build_context(name, list(syntaxes) or list(PLAIN))


@dataclass(frozen=True, slots=True)
class Link:
    """The way to another application."""

    host: str
    port: int
    ae_title: str
    calling_ae_title: str
    timeout_s: float
    answer_timeout_s: float

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.ae_title} at {self.host}:{self.port}"

    @contextmanager
    def opened(
        self, contexts: Sequence[Any], *, roles: Sequence[Any] = (), store: Callable[[Any], int] | None = None
    ) -> Iterator[Any]:
        """An association, released at the end, aborted where the block fails.

        Args:
            contexts: What to propose, as from ``context``.
            roles: In which of them we take the other role.
            store: Answers C-STORE requests of the other end.

        Yields:
            The association.

        Raises:
            InputError: The other end refuses.
            OfflineError: It cannot be reached.
        """
        library = pynetdicom()
        entity = library.AE(ae_title=self.calling_ae_title)
        entity.acse_timeout = entity.connection_timeout = self.timeout_s
        entity.dimse_timeout = entity.network_timeout = self.answer_timeout_s
        handlers = guards(timeout_s=self.answer_timeout_s, max_object_bytes=MAX_OBJECT_BYTES)
        if store is not None:
            handlers.append((library.evt.EVT_C_STORE, store))
        try:
            assoc = entity.associate(
                self.host, self.port, contexts=list(contexts), ae_title=self.ae_title, max_pdu=MAX_PDU_BYTES,
                ext_neg=list(roles), evt_handlers=handlers,
            )  # fmt: skip
        except OSError as error:
            raise self._unreachable(error) from error
        if not assoc.is_established:
            shut(assoc.dul.socket)
            raise self._rejection(assoc)
        try:
            yield assoc
        except BaseException:
            assoc.abort()
            raise
        if assoc.is_established:
            assoc.release()

    def _rejection(self, assoc: Any) -> Exception:
        """Why there is no association."""
        if assoc.is_rejected:
            reason = assoc.acceptor.primitive.reason_str.lower()
            return InputError(
                f"{self.name}: refuses us, {self.calling_ae_title}: {reason}",
                hint="do both sides know each other's AE titles? it must be called by its own, and know ours",
            )
        if assoc.rejected_contexts:
            names = sorted({syntax_name(str(one.abstract_syntax)) for one in assoc.rejected_contexts})
            return InputError(f"{self.name}: does not offer {', '.join(names)[:200]}")
        try:
            socket.create_connection((self.host, self.port), timeout=self.timeout_s).close()
        except OSError as error:
            return self._unreachable(error)
        return OfflineError(
            f"{self.name}: takes connections and breaks them off or does not answer",
            hint="is it a DICOM port, and is TLS not asked for?",
        )

    def _unreachable(self, error: OSError) -> OfflineError:
        why = "no answer" if isinstance(error, TimeoutError) else error.strerror or type(error).__name__
        return OfflineError(
            f"{self.name}: cannot be reached ({why})", hint="check the address, the port and the firewall"
        )
