"""Ask, fetch and store by DIMSE: C-ECHO, C-FIND, C-GET, C-MOVE and C-STORE, as a user of an archive (SCU).

References:
    DICOM PS3.4 annexes B (Storage) and C (Query/Retrieve, Study Root), PS3.7.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom import DataElement, Dataset
from pydicom.charset import convert_encodings, decode_bytes
from pydicom.config import IGNORE
from pydicom.datadict import dictionary_VR
from pydicom.filereader import read_file_meta_info
from pydicom.multival import MultiValue
from pydicom.tag import Tag
from pydicom.valuerep import TEXT_VR_DELIMS

from spicula.core.errors import InputError, OfflineError, SpiculaWarning
from spicula.dicom.association import PLAIN, Link, context
from spicula.dicom.dimse import PENDING, SUCCESS, checked_ae_title, pynetdicom, syntax_name, take
from spicula.dicom.inbox import Arrived, Inbox, readable
from spicula.dicom.listener import Listener
from spicula.dicom.remote import (
    INSTANCE_KEYS,
    SERIES_KEYS,
    STUDY_KEYS,
    Lookup,
    RemoteInstance,
    RemoteSeries,
    RemoteStudy,
    checked_filters,
    checked_uid,
    instance_of,
    series_of,
    status_in_words,
    study_of,
)

FIND, MOVE, GET = (f"1.2.840.10008.5.1.4.1.2.2.{number}" for number in (1, 2, 3))
"""Study Root Query/Retrieve."""
VERIFICATION = "1.2.840.10008.1.1"

_CT = ("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2")
_OTHERS = tuple(f"1.2.840.10008.5.1.4.1.1.{end}" for end in ("7", "66.4", "88.11", "88.22", "88.33", "88.34", "88.67"))
"""Secondary capture, segmentation and structured reports."""
_COMPRESSED = tuple(
    f"1.2.840.10008.1.2.{end}" for end in ("2", "4.50", "4.51", "4.57", "4.70", "4.80", "4.81", "4.90", "4.91", "5")
)
_MOST_CONTEXTS = 128


@dataclass(frozen=True, slots=True)
class Pacs:
    """An archive that speaks DIMSE.

    Args:
        host: Its address.
        port: Its port, often 104, 4242 or 11112.
        ae_title: Its name.
        calling_ae_title: Ours, which it may have to know.
        timeout_s: For connecting and for coming to terms.
        answer_timeout_s: How long it may be silent while it works.
        max_results: More matches than this are refused.
    """

    host: str
    port: int
    ae_title: str
    calling_ae_title: str = "SPICULA"
    timeout_s: float = 15.0
    answer_timeout_s: float = 300.0
    max_results: int = 100_000

    def __post_init__(self) -> None:
        checked_ae_title(self.ae_title, "ae_title")
        checked_ae_title(self.calling_ae_title, "calling_ae_title")
        if not 0 < self.port < 65536:
            raise InputError("port", got=self.port, expected="a number from 1 to 65535")

    def echo(self) -> None:
        """Ask whether it is there and talks to us.

        Raises:
            InputError: It refuses.
            OfflineError: It cannot be reached.
        """
        with self._link.opened([context(VERIFICATION)]) as assoc:
            status = assoc.send_c_echo()
            if self._status(status, "C-ECHO") != SUCCESS:
                raise self._refusal("C-ECHO", status.Status)

    def find_studies(self, **filters: str) -> tuple[RemoteStudy, ...]:
        """Find studies.

        Args:
            **filters: By DICOM keyword, for example ``PatientID="P1"``, ``StudyDate="20240101-"``,
                ``ModalitiesInStudy="CT"``; ``*`` and ``?`` are wildcards.

        Returns:
            All that match.

        Raises:
            InputError: A filter makes no sense, the archive refuses, or there are too many matches.
            OfflineError: It cannot be reached.
        """
        return tuple(study_of(item) for item in self._found("STUDY", STUDY_KEYS, filters))

    def find_series(self, study_uid: str, **filters: str) -> tuple[RemoteSeries, ...]:
        """Find the series of a study; else as ``find_studies``."""
        fixed = {"StudyInstanceUID": checked_uid(study_uid, "study_uid")}
        return tuple(series_of(item, study_uid) for item in self._found("SERIES", SERIES_KEYS, filters | fixed))

    def find_instances(self, study_uid: str, series_uid: str, **filters: str) -> tuple[RemoteInstance, ...]:
        """Find the instances of a series; else as ``find_studies``."""
        found = self._found("IMAGE", INSTANCE_KEYS, filters | _unique(study_uid, series_uid))
        return tuple(instance_of(item, study_uid, series_uid=series_uid) for item in found)

    def fetch_series(self, study_uid: str, series_uid: str, folder: Path) -> tuple[Path, ...]:
        """Fetch a series by C-GET, as it is stored where the archive can; each instance whole or not at all.

        Args:
            study_uid: The study it belongs to.
            series_uid: The series.
            folder: Where the instances go, as ``<SOP Instance UID>.dcm``.

        Returns:
            The files, sorted.

        Raises:
            InputError: The archive holds no such series, refuses C-GET, or gave less than it tells by C-FIND.
            OfflineError: It cannot be reached, or the connection broke.
        """
        expected = self._expected(study_uid, series_uid)
        refusals: list[str] = []
        with Inbox(folder) as inbox:
            self._get(study_uid, series_uid, inbox, refusals)
            places = [inbox.place_of(series_uid, uid) for uid in expected]
        self._check_all(expected, places, refusals)
        return tuple(sorted(places))

    def move_series(self, study_uid: str, series_uid: str, *, destination: str) -> int:
        """Have the archive send a series to an AE title that it knows (C-MOVE).

        Args:
            study_uid: The study it belongs to.
            series_uid: The series.
            destination: The AE title, for example that of a ``Listener``.

        Returns:
            How many instances it sent.

        Raises:
            InputError: It refuses, does not know the destination, or could not send all.
            OfflineError: It cannot be reached, or the connection broke.
        """
        identifier = _identifier("SERIES", (), _unique(study_uid, series_uid))
        destination = checked_ae_title(destination, "destination")
        status = Dataset()
        with self._link.opened([context(MOVE)]) as assoc:
            for status, _ in assoc.send_c_move(identifier, destination, MOVE):
                if self._status(status, "C-MOVE") not in PENDING:
                    break
        return self._moved(status, "C-MOVE")

    def fetch_series_by_move(
        self, study_uid: str, series_uid: str, folder: Path, *, port: int, host: str = "127.0.0.1"
    ) -> tuple[Path, ...]:
        """Fetch a series by C-MOVE to ourselves, for archives that do not take C-GET.

        Args:
            study_uid: The study it belongs to.
            series_uid: The series.
            folder: Where the instances go, as ``<series UID>/<SOP Instance UID>.dcm``.
            port: Where we listen meanwhile; the archive must know our AE title with this machine's address and port.
            host: The address we listen on.

        Returns:
            The files, sorted.

        Raises:
            InputError: As for ``move_series``, or the archive sent less than it tells by C-FIND.
            OfflineError: As for ``move_series``.
        """
        expected = self._expected(study_uid, series_uid)
        with Listener(folder, port, ae_title=self.calling_ae_title, host=host) as listener:
            self.move_series(study_uid, series_uid, destination=self.calling_ae_title)
            places = [listener.place_of(series_uid, uid) for uid in expected]
        self._check_all(expected, places, [])
        return tuple(sorted(places))

    def store(self, files: Sequence[Path]) -> tuple[str, ...]:
        """Send files (C-STORE) in the transfer syntaxes that they are stored in.

        Args:
            files: DICOM files, for example of ``write_sr`` and ``write_seg``.

        Returns:
            Their SOP Instance UIDs, each acknowledged by the archive.

        Raises:
            InputError: A file is not DICOM, or the archive refuses some; the others were sent.
            OfflineError: It cannot be reached, or the connection broke.
        """
        instances = [readable(Path(file)) for file in files]
        failed: dict[str, str] = {}
        sent = 0
        for batch in _batches([(instance, _syntax(instance)) for instance in instances]):
            kinds = dict.fromkeys((instance.sop_class_uid, syntax) for instance, syntax in batch)
            contexts = [context(sop_class, syntax) for sop_class, syntax in kinds]
            with self._link.opened(contexts) as assoc:
                for instance, syntax in batch:
                    reason = self._send(assoc, instance, syntax, f"{sent} of {len(instances)} instances")
                    failed |= {instance.sop_instance_uid: reason} if reason else {}
                    sent += not reason
        if failed:
            uid, reason = next(iter(failed.items()))
            raise InputError(
                f"{self._name}: refused {len(failed)} of {len(instances)} instances, the first {uid}: {reason}"
            )
        return tuple(instance.sop_instance_uid for instance in instances)

    @property
    def _link(self) -> Link:
        return Link(
            self.host, self.port, self.ae_title, self.calling_ae_title,
            timeout_s=self.timeout_s, answer_timeout_s=self.answer_timeout_s,
        )  # fmt: skip

    @property
    def _name(self) -> str:
        return f"{self.ae_title} at {self.host}:{self.port}"

    def _found(self, level: str, keys: Sequence[str], filters: Mapping[str, str]) -> list[Lookup]:
        identifier = _identifier(level, keys, checked_filters(filters))
        found: list[Lookup] = []
        with self._link.opened([context(FIND)]) as assoc:
            for status, match in assoc.send_c_find(identifier, FIND):
                code = self._status(status, "C-FIND")
                if code not in PENDING:
                    if code != SUCCESS:
                        raise self._refusal("C-FIND", code)
                    break
                if match is not None:
                    found.append(_lookup(match))
                if len(found) > self.max_results:
                    raise InputError(f"{self._name}: more than {self.max_results} matches", hint="search more narrowly")
        return found

    def _expected(self, study_uid: str, series_uid: str) -> list[str]:
        expected = [instance.sop_instance_uid for instance in self.find_instances(study_uid, series_uid)]
        if not expected:
            raise InputError(f"{self._name}: series {series_uid}", got="no instance", expected="a series that it holds")
        return expected

    def _check_all(self, expected: Sequence[str], places: Sequence[Path], refusals: Sequence[str]) -> None:
        missing = [uid for uid, place in zip(expected, places, strict=True) if not place.exists()]
        if missing:
            why = f" ({refusals[0]})" if refusals else ""
            raise InputError(
                f"{self._name}: {len(missing)} of {len(expected)} instances did not arrive, the first {missing[0]}{why}"
            )

    def _get(self, study_uid: str, series_uid: str, inbox: Inbox, refusals: list[str]) -> None:
        library = pynetdicom()
        contexts = [context(GET), *(context(name, syntax) for name in _CT for syntax in (*PLAIN, *_COMPRESSED))]
        contexts += [context(name, *syntaxes) for name in _OTHERS for syntaxes in (PLAIN, ("1.2.840.10008.1.2.5",))]
        roles = [library.build_role(name, scp_role=True) for name in (*_CT, *_OTHERS)]

        def store(event: Any) -> int:
            status, _, reason = take(event, inbox, series_uid=series_uid)
            refusals.extend([reason] if reason else [])
            return status

        identifier = _identifier("SERIES", (), _unique(study_uid, series_uid))
        status = Dataset()
        with self._link.opened(contexts, roles=roles, store=store) as assoc:
            for status, _ in assoc.send_c_get(identifier, GET):
                if self._status(status, "C-GET") not in PENDING:
                    break
        if not refusals:
            self._moved(status, "C-GET")

    def _moved(self, status: Dataset, what: str) -> int:
        """How many instances went over, from the last answer of a C-MOVE or C-GET."""
        done, failed = (int(status.get(f"NumberOf{kind}Suboperations") or 0) for kind in ("Completed", "Failed"))
        if failed or status.Status != SUCCESS:
            why = f"{failed} of {done + failed} instances failed, " if failed else ""
            hint = (
                "does it know the destination's AE title, address and port (Orthanc: DicomModalities)? can it reach it?"
            )
            raise InputError(
                f"{self._name}: {what}: {why}{status_in_words(status.Status)}", hint=hint if what == "C-MOVE" else None
            )
        return done

    def _send(self, assoc: Any, instance: Arrived, syntax: str, so_far: str) -> str:
        """Send one file; why the archive refused it, if it did."""
        accepted = {(one.abstract_syntax, one.transfer_syntax[0]) for one in assoc.accepted_contexts}
        if (instance.sop_class_uid, syntax) not in accepted:
            return f"it does not take {syntax_name(instance.sop_class_uid)} in {syntax_name(syntax)}"
        try:
            status = assoc.send_c_store(instance.path)
        except RuntimeError as error:  # the association is gone
            raise OfflineError(f"{self._name}: the connection broke off after {so_far}") from error
        except (AttributeError, TypeError, ValueError) as error:
            return f"its header cannot be sent ({type(error).__name__})"
        code = self._status(status, f"C-STORE after {so_far}")
        if 0xB000 <= code <= 0xBFFF:
            warnings.warn(f"{instance.sop_instance_uid}: {status_in_words(code)}", SpiculaWarning, stacklevel=3)
        elif code != SUCCESS:
            return status_in_words(code)
        return ""

    def _status(self, status: Dataset, what: str) -> int:
        if "Status" not in status:
            raise OfflineError(
                f"{self._name}: {what}: the connection broke off, or no answer came within {self.answer_timeout_s:g} s"
            )
        return int(status.Status)

    def _refusal(self, what: str, status: int) -> InputError:
        return InputError(f"{self._name}: {what}: {status_in_words(status)}")


def _unique(study_uid: str, series_uid: str) -> dict[str, str]:
    return {
        "StudyInstanceUID": checked_uid(study_uid, "study_uid"),
        "SeriesInstanceUID": checked_uid(series_uid, "series_uid"),
    }


def _identifier(level: str, keys: Sequence[str], filters: Mapping[str, str]) -> Dataset:
    """A query; wildcards and ranges are not checked as if they were values."""
    identifier = Dataset()
    if not all(value.isascii() for value in filters.values()):
        identifier.SpecificCharacterSet = "ISO_IR 192"
    for keyword, value in (dict.fromkeys(keys, "") | {"QueryRetrieveLevel": level} | dict(filters)).items():
        tag = Tag(keyword)
        identifier.add(DataElement(tag, dictionary_VR(tag), value, validation_mode=IGNORE))
    return identifier


def _lookup(match: Dataset) -> Lookup:
    """The values of a match, read without pydicom's checks: these log what is odd, a patient's name for example."""
    encodings = convert_encodings(_texts(match, "SpecificCharacterSet", ["ascii"]))

    def values(keyword: str) -> tuple[str, ...]:
        texts = _texts(match, keyword, encodings)
        return tuple(text.split("=")[0] for text in texts) if keyword == "PatientName" else tuple(texts)

    return values


def _texts(match: Dataset, keyword: str, encodings: Sequence[str]) -> list[str]:
    tag = Tag(keyword)
    value = match.get_item(tag).value if tag in match else None
    if isinstance(value, bytes):
        text = decode_bytes(value, list(encodings), TEXT_VR_DELIMS)
        return [part.strip(" \0") for part in text.split("\\")]
    several = value if isinstance(value, MultiValue) else [] if value is None else [value]
    return [str(one) for one in several]


def _syntax(instance: Arrived) -> str:
    names = ("MediaStorageSOPClassUID", "MediaStorageSOPInstanceUID", "TransferSyntaxUID")
    meta = read_file_meta_info(instance.path)
    if not all(meta.get(name) for name in names):
        raise InputError(f"{instance.path}: cannot be sent", got="a file without file meta information")
    return str(meta.TransferSyntaxUID)


def _batches(instances: Sequence[tuple[Arrived, str]]) -> Iterator[list[tuple[Arrived, str]]]:
    """Instances that one association can carry: it has room for 128 kinds."""
    batch: list[tuple[Arrived, str]] = []
    kinds: set[tuple[str, str]] = set()
    for instance, syntax in instances:
        kinds.add((instance.sop_class_uid, syntax))
        if len(kinds) > _MOST_CONTEXTS:
            yield batch
            batch, kinds = [], {(instance.sop_class_uid, syntax)}
        batch.append((instance, syntax))
    if batch:
        yield batch
