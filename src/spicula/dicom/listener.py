"""A storage SCP: takes in what a scanner or an archive sends (C-STORE), and answers C-ECHO.

DIMSE knows no passwords: an AE title is a name, not a proof. Listen where only the imaging network reaches.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from spicula.core.errors import InputError
from spicula.dicom.dimse import (
    MAX_OBJECT_BYTES,
    MAX_PDU_BYTES,
    checked_ae_title,
    guards,
    pynetdicom,
    take,
    transfer_syntaxes,
)
from spicula.dicom.inbox import Arrived, Inbox
from spicula.dicom.remote import safe_name

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Arrival:
    """What one association brought.

    ``instances`` are those that were stored, in order, one sent twice named twice; ``refused`` counts the others;
    ``released`` is False where the sender broke off, so that more may follow.
    """

    calling_ae_title: str
    address: str
    instances: tuple[Arrived, ...]
    refused: int
    released: bool

    @property
    def series(self) -> tuple[tuple[str, str], ...]:
        """Study and series UIDs of what arrived, each series once."""
        return tuple(dict.fromkeys((instance.study_uid, instance.series_uid) for instance in self.instances))


class Listener:
    """Listens from ``start`` (or ``with``) to ``close``.

    Each instance is written aside, checked, brought to the disk and moved to ``<folder>/<series UID>/<instance
    UID>.dcm``; only then it is acknowledged. One that is cut short, or is another than its sender says, is refused.

    Args:
        folder: Where instances go; one listener at a time.
        port: The TCP port; 0 takes a free one, see the attribute.
        ae_title: Our name. Associations that call another are refused.
        host: The address to listen on; ``0.0.0.0`` for all of this machine.
        allowed: AE titles that may call; all if empty.
        on_arrival: Called, in a thread of its association, as one that brought something ends. A listener that was
            killed does not call it: look through the folder at the start.
        max_object_bytes: The connection of who sends a larger instance is closed.
        max_associations: More at a time are refused.
        reserve_bytes: Space to leave on the disk.
        timeout_s: How long a connection may be silent.
    """

    def __init__(
        self,
        folder: Path,
        port: int,
        *,
        ae_title: str = "SPICULA",
        host: str = "127.0.0.1",
        allowed: Sequence[str] = (),
        on_arrival: Callable[[Arrival], None] | None = None,
        max_object_bytes: int = MAX_OBJECT_BYTES,
        max_associations: int = 8,
        reserve_bytes: int = 256 * 2**20,
        timeout_s: float = 60.0,
    ) -> None:
        self.folder, self.port, self.host = Path(folder), port, host
        self.ae_title = checked_ae_title(ae_title, "ae_title")
        self._allowed = [checked_ae_title(title, "allowed") for title in allowed]
        self._on_arrival, self._max_object_bytes = on_arrival, max_object_bytes
        self._max_associations, self._reserve_bytes, self._timeout_s = max_associations, reserve_bytes, timeout_s
        self._open: dict[Any, list[Arrived | None]] = {}
        self._lock = threading.Lock()
        self._inbox: Inbox | None = None
        self._entity: Any = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Begin to listen, in threads.

        Raises:
            InputError: The port is taken, or another listener uses the folder.
            MissingExtraError: pynetdicom is not installed.
        """
        library = pynetdicom()
        entity = self._new_entity(library)
        self._inbox = Inbox(self.folder, by_series=True, reserve_bytes=self._reserve_bytes)
        try:
            server = entity.start_server(
                (self.host, self.port), block=False, ae_title=self.ae_title, evt_handlers=self._handlers(library.evt)
            )
        except (OSError, OverflowError) as error:
            self._inbox.close()
            raise InputError(
                f"port {self.port} of {self.host}",
                got=getattr(error, "strerror", None) or str(error),
                expected="a free port from 1 to 65535",
                hint="is another listener running? ports below 1024 need the rights of root",
            ) from error
        self.port, self._entity = server.server_address[1], entity

    def close(self) -> None:
        """Stop: associations are aborted, instances that are not whole are dropped."""
        entity, self._entity = self._entity, None
        if entity is None or self._inbox is None:
            return
        threads = [thread for assoc in entity.active_associations for thread in (assoc, assoc.dul)]
        entity.shutdown()
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(self._timeout_s)
        for assoc in list(self._open):
            self._ended(assoc, released=False)
        self._inbox.close()

    def place_of(self, series_uid: str, sop_instance_uid: str) -> Path:
        """Where an instance lies, or would."""
        return self.folder / safe_name(series_uid) / f"{safe_name(sop_instance_uid)}.dcm"

    def _new_entity(self, library: Any) -> Any:
        entity = library.AE(ae_title=self.ae_title)
        syntaxes = transfer_syntaxes()
        for context in library.AllStoragePresentationContexts:
            entity.add_supported_context(context.abstract_syntax, syntaxes)
        entity.add_supported_context(library.sop_class.Verification)
        entity.require_called_aet, entity.require_calling_aet = True, self._allowed
        entity.maximum_associations, entity.maximum_pdu_size = self._max_associations, MAX_PDU_BYTES
        entity.acse_timeout = min(self._timeout_s, 30.0)
        entity.dimse_timeout = entity.network_timeout = self._timeout_s
        return entity

    def _handlers(self, events: Any) -> list[tuple[Any, ...]]:
        return [
            *guards(timeout_s=self._timeout_s, max_object_bytes=self._max_object_bytes),
            (events.EVT_C_STORE, self._store),
            (events.EVT_RELEASED, lambda event: self._ended(event.assoc, released=True)),
            (events.EVT_ABORTED, lambda event: self._ended(event.assoc, released=False)),
        ]

    def _store(self, event: Any) -> int:
        if self._inbox is None:
            return 0x0110
        status, arrived, reason = take(event, self._inbox)
        with self._lock:
            self._open.setdefault(event.assoc, []).append(arrived)
        if arrived is None:
            _LOG.warning("an instance was refused with status 0x%04X: %s", status, reason)
        return status

    def _ended(self, assoc: Any, *, released: bool) -> None:
        with self._lock:
            came = self._open.pop(assoc, [])
        if not came or self._on_arrival is None:
            return
        arrival = Arrival(
            str(assoc.requestor.ae_title).strip(),
            str(assoc.requestor.address),
            tuple(arrived for arrived in came if arrived is not None),
            refused=sum(arrived is None for arrived in came),
            released=released,
        )
        try:
            self._on_arrival(arrival)
        except Exception:  # the caller's own; the listener goes on
            _LOG.exception("what was to be done with an arrival failed")
