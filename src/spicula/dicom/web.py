"""Ask, fetch and store by DICOMweb (QIDO-RS, WADO-RS, STOW-RS), with nothing lost in silence.

Written on ``requests``, which is a dependency anyway, and not on dicomweb-client: that one (0.61.2) sends more than a
megabyte by STOW in chunks, to which some servers answer 200 and store nothing; it builds whole series and batches in
memory, and looks at FailedSOPSequence only to log it.

References:
    DICOM PS3.18, chapter 10 (Studies Service and Resources).
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import IO, Self
from uuid import uuid4

from spicula.core.errors import InputError, OfflineError
from spicula.dicom.dicom_json import answer_in, failures_in, matches_in, tag_of, uid_of
from spicula.dicom.http import HttpServer, body_of, pause_s, pieces
from spicula.dicom.inbox import Arrived, Inbox, readable
from spicula.dicom.multipart import BrokenTransfer, parts_to_files
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
    study_of,
)

JSON = "application/dicom+json"
MULTIPART = 'multipart/related; type="application/dicom"'
MAX_JSON_BYTES = 64 * 2**20
MAX_INSTANCE_BYTES = 4 * 2**30


class DicomWeb:
    """A DICOMweb server.

    Args:
        url: The root of its services, for example ``http://localhost:8042/dicom-web``.
        user: For basic authentication, with ``password``.
        password: As above.
        token: A bearer token, instead.
        verify: Whether to check the certificate of https, or the file of the authority that signed it.
        timeout_s: For connecting, and for each wait for data.
        attempts: How often to ask where the server is busy or a connection breaks.
        page_size: How many matches to ask for at once.
        max_results: More matches than this are refused.
        batch_bytes: How much to store in one request; a larger instance goes alone.
        confirm_s: How long the server may take to show what it has stored.

    Raises:
        InputError: The address is not one of http or https.

    Example:
        >>> DicomWeb("https://anna:secret@pacs.example/dicom-web/").url
        'https://pacs.example/dicom-web'
    """

    def __init__(
        self,
        url: str,
        *,
        user: str = "",
        password: str = "",
        token: str = "",
        verify: bool | str | Path = True,
        timeout_s: float = 30.0,
        attempts: int = 4,
        page_size: int = 200,
        max_results: int = 100_000,
        batch_bytes: int = 32 * 2**20,
        confirm_s: float = 20.0,
    ) -> None:
        self._http = HttpServer(
            url, user=user, password=password, token=token, verify=verify, timeout_s=timeout_s, attempts=attempts
        )
        self.url, self.attempts = self._http.url, self._http.attempts
        self.page_size, self.max_results = max(page_size, 1), max_results
        self.batch_bytes, self.confirm_s = batch_bytes, confirm_s

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def find_studies(self, **filters: str) -> tuple[RemoteStudy, ...]:
        """Find studies.

        Args:
            **filters: By DICOM keyword, for example ``PatientID="P1"``, ``StudyDate="20240101-"``,
                ``ModalitiesInStudy="CT"``; ``*`` and ``?`` are wildcards.

        Returns:
            All that match, page by page.

        Raises:
            InputError: A filter makes no sense, the server refuses, or it cannot give all matches.
            OfflineError: It cannot be reached.
        """
        return tuple(study_of(item) for item in self._found("studies", STUDY_KEYS, filters, key="StudyInstanceUID"))

    def find_series(self, study_uid: str = "", **filters: str) -> tuple[RemoteSeries, ...]:
        """Find the series of a study, or of all; else as ``find_studies``."""
        path = f"studies/{checked_uid(study_uid, 'study_uid')}/series" if study_uid else "series"
        found = self._found(path, SERIES_KEYS, filters, key="SeriesInstanceUID")
        return tuple(series_of(item, study_uid) for item in found)

    def find_instances(self, study_uid: str, series_uid: str, **filters: str) -> tuple[RemoteInstance, ...]:
        """Find the instances of a series; else as ``find_studies``."""
        found = self._found(
            f"{_series_path(study_uid, series_uid)}/instances", INSTANCE_KEYS, filters, key="SOPInstanceUID"
        )
        return tuple(instance_of(item, study_uid, series_uid=series_uid) for item in found)

    def fetch_series(self, study_uid: str, series_uid: str, folder: Path) -> tuple[Path, ...]:
        """Fetch a series as it is stored, each instance whole or not at all.

        Instances that lie in the folder already are not fetched again; where a transfer breaks, what is missing is
        asked for one by one.

        Args:
            study_uid: The study it belongs to.
            series_uid: The series.
            folder: Where the instances go, as ``<SOP Instance UID>.dcm``.

        Returns:
            The files, sorted.

        Raises:
            InputError: The server holds no such series, or gave less or other than it tells by QIDO.
            OfflineError: It cannot be reached, or transfers break again and again.
        """
        path = _series_path(study_uid, series_uid)
        expected = {instance.sop_instance_uid for instance in self.find_instances(study_uid, series_uid)}
        if not expected:
            raise InputError(f"{self.url}: series {series_uid}", got="no instance", expected="a series that it holds")
        with Inbox(folder) as inbox:
            places = {uid: inbox.place_of(series_uid, uid) for uid in expected}
            if 4 * sum(place.exists() for place in places.values()) < len(places):
                with suppress(BrokenTransfer):
                    for arrived in self._retrieve(path, inbox, study_uid=study_uid, series_uid=series_uid):
                        places[arrived.sop_instance_uid] = arrived.path
            for uid in sorted(expected):
                if not places[uid].exists():
                    self._fetch_instance(f"{path}/instances/{checked_uid(uid, 'SOP Instance UID')}", inbox, uid=uid)
        missing = sorted(uid for uid, place in places.items() if not place.exists())
        if missing:
            raise InputError(
                f"{self.url}: series {series_uid}, its instance {missing[0]}" + _and_more(missing),
                got="nothing by WADO", expected="what the server tells by QIDO",
            )  # fmt: skip
        return tuple(sorted(places.values()))

    def store(self, files: Sequence[Path]) -> tuple[str, ...]:
        """Store files by STOW, and believe it only when QIDO shows them.

        Args:
            files: DICOM files, for example of ``write_sr`` and ``write_seg``.

        Returns:
            Their SOP Instance UIDs, each confirmed.

        Raises:
            InputError: A file is not DICOM, the server refuses some, or says it stored them and does not show them.
            OfflineError: It cannot be reached.
        """
        instances = [readable(Path(file)) for file in files]
        failed: dict[str, str] = {}
        for batch in self._batches(instances):
            failed |= self._store_batch(batch)
        if failed:
            uid, reason = next(iter(failed.items()))
            raise InputError(
                f"{self.url}: refused {len(failed)} of {len(instances)} instances, the first {uid}: {reason}"
            )
        self._confirm(instances)
        return tuple(instance.sop_instance_uid for instance in instances)

    def confirm(self, files: Sequence[Path]) -> None:
        """Wait until QIDO shows files that went to the server in any way, by C-STORE for example.

        Raises:
            InputError: Some are not shown in time.
            OfflineError: The server cannot be reached.
        """
        self._confirm([readable(Path(file)) for file in files])

    # --- QIDO

    def _found(self, path: str, keys: Sequence[str], filters: Mapping[str, str], *, key: str) -> list[Lookup]:
        """All matches: pages are asked for until one is empty, as a server may give fewer than it was asked for."""
        fixed = [*checked_filters(filters).items(), *(("includefield", tag_of(name)) for name in keys)]
        found: dict[str, Lookup] = {}
        offset = 0
        while True:
            page, cut = self._page(path, [*fixed, ("limit", str(self.page_size)), ("offset", str(offset))])
            new = {uid_of(item, key, url=self.url): item for item in page}
            if page and new.keys() <= found.keys():  # the offset is ignored
                if len(page) == self.page_size or cut:
                    raise InputError(
                        f"{self.url}: gives the same {len(page)} matches for every page",
                        expected="a server that heeds 'offset'", hint="search more narrowly, or raise page_size",
                    )  # fmt: skip
                page = []
            if not page:
                return list(found.values())
            found |= new
            offset += len(page)
            if len(found) > self.max_results:
                raise InputError(
                    f"{self.url}: more than {self.max_results} matches",
                    hint="search more narrowly, or raise max_results",
                )

    def _page(self, path: str, params: Sequence[tuple[str, str]]) -> tuple[list[Lookup], bool]:
        """Matches, and whether the server says that there are more than it gives (warning 299)."""
        attempt = 0
        while True:
            attempt += 1
            try:
                with self._http.asked("GET", path, accept=JSON, params=params) as response:
                    body = body_of(response, MAX_JSON_BYTES)
                    return matches_in(body, self.url), response.headers.get("Warning", "").startswith("299")
            except BrokenTransfer as error:
                if attempt >= self.attempts:
                    raise OfflineError(f"{self.url}: {error}") from error
            time.sleep(pause_s(attempt))

    # --- WADO

    def _retrieve(
        self, path: str, inbox: Inbox, *, study_uid: str, series_uid: str, uid: str = ""
    ) -> Iterator[Arrived]:
        with self._http.asked("GET", path, accept=f"{MULTIPART}; transfer-syntax=*") as response:
            kind = response.headers.get("Content-Type", "")
            chunks = pieces(response)
            if kind.split(";")[0].strip().lower() == "application/dicom":
                chunks, kind = _as_one_part(chunks)
            files = parts_to_files(
                chunks, kind, aside=inbox.aside, max_part_bytes=MAX_INSTANCE_BYTES, max_parts=self.max_results
            )
            for file in files:
                yield inbox.keep(file, study_uid=study_uid, series_uid=series_uid, sop_instance_uid=uid)

    def _fetch_instance(self, path: str, inbox: Inbox, *, uid: str) -> None:
        for attempt in range(1, self.attempts + 1):
            try:
                for _ in self._retrieve(path, inbox, study_uid="", series_uid="", uid=uid):
                    pass
                return
            except BrokenTransfer as error:
                if attempt == self.attempts:
                    raise OfflineError(f"{self.url}: instance {uid}: {error}, {attempt} times") from error
            time.sleep(pause_s(attempt))

    # --- STOW

    def _batches(self, instances: Sequence[Arrived]) -> Iterator[list[Arrived]]:
        batch: list[Arrived] = []
        size = 0
        for instance in instances:
            length = instance.path.stat().st_size
            if batch and size + length > self.batch_bytes:
                yield batch
                batch, size = [], 0
            batch.append(instance)
            size += length
        if batch:
            yield batch

    def _store_batch(self, batch: Sequence[Arrived]) -> dict[str, str]:
        """Send; what was refused, with the reasons."""
        boundary = uuid4().hex
        with tempfile.TemporaryFile() as body:
            _write_multipart(body, [instance.path for instance in batch], boundary)
            with self._http.asked(
                "POST", "studies", accept=JSON, body=body, body_type=f"{MULTIPART}; boundary={boundary}",
                also=frozenset({409}),
            ) as response:  # fmt: skip
                try:
                    answer = answer_in(body_of(response, MAX_JSON_BYTES))
                except BrokenTransfer:
                    answer = {}  # QIDO tells what came of it
                status = response.status_code
        failed = failures_in(answer)
        if status == 409 and not failed:
            raise InputError(f"{self.url}: answers 409 to what is stored, without reasons", hint="see the server's log")
        return failed

    def _confirm(self, instances: Sequence[Arrived]) -> None:
        """Wait until QIDO shows each instance."""
        missing = {instance.sop_instance_uid: instance for instance in instances}
        stop, attempt = time.monotonic() + self.confirm_s, 0
        while True:
            for study_uid, series_uid in sorted({(i.study_uid, i.series_uid) for i in missing.values()}):
                for shown in self.find_instances(study_uid, series_uid):
                    missing.pop(shown.sop_instance_uid, None)
            attempt += 1
            if not missing:
                return
            if time.monotonic() > stop:
                break
            time.sleep(min(pause_s(attempt), max(stop - time.monotonic(), 0)))
        raise InputError(
            f"{self.url}: took {len(instances)} instances and does not show {len(missing)} of them,"
            f" the first {next(iter(missing))}",
            hint="is its disk full? does it keep this kind of object? nothing was lost here: store again",
        )


def _series_path(study_uid: str, series_uid: str) -> str:
    return f"studies/{checked_uid(study_uid, 'study_uid')}/series/{checked_uid(series_uid, 'series_uid')}"


def _as_one_part(chunks: Iterator[bytes]) -> tuple[Iterator[bytes], str]:
    """A lone instance, which some servers send without multipart, as a message of one part."""
    boundary = uuid4().hex
    return chain([f"--{boundary}\r\n\r\n".encode()], chunks, [f"\r\n--{boundary}--".encode()]), (
        f"multipart/related; boundary={boundary}"
    )


def _and_more(uids: Sequence[str]) -> str:
    return f" and {len(uids) - 1} more" if len(uids) > 1 else ""


def _write_multipart(body: IO[bytes], paths: Iterable[Path], boundary: str) -> None:
    for path in paths:
        body.write(f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode())
        with path.open("rb") as file:
            while piece := file.read(2**20):
                body.write(piece)
        body.write(b"\r\n")
    body.write(f"--{boundary}--\r\n".encode())
