"""DICOM into the store: a folder, a file or a zip, instance by instance, each whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spicula.core.errors import InputError, SpiculaError
from spicula.core.files import ASIDE
from spicula.dicom.archive import SEPARATOR, files_in, is_dicom, open_member
from spicula.dicom.data_set import same_data_set
from spicula.dicom.deidentify import deidentified
from spicula.dicom.facts import instance_facts
from spicula.store.studies import NewInstance, Studies

MOST_REASONS = 50
"""So many files that were left out are told one by one."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Ingested:
    """What became of the files.

    Args:
        added: Instances that are new in the store.
        known: Instances that were there.
        studies: Studies that they belong to, in the order they came.
        left_out: Files that are no DICOM instances (DICOMDIR, text, pictures).
        refused: A sentence for each DICOM file that could not be kept, :data:`MOST_REASONS` at most.
        failed: How many could not be kept.
    """

    added: int
    known: int
    studies: tuple[str, ...]
    left_out: int
    refused: tuple[str, ...]
    failed: int


def ingest(
    source: Path, studies: Studies, *, origin: str, deidentify: bytes | None = None, most_bytes: int | None = None,
    progress: Progress | None = None,
) -> Ingested:  # fmt: skip
    """Bring every DICOM instance of a folder, file or zip into the store.

    Args:
        source: What came; zips are checked for names that lead out, links and bombs before anything is unpacked.
        studies: Of the store.
        origin: How it came, for example ``"upload"``.
        deidentify: The secret of the store, see :func:`spicula.dicom.deidentify.secret_of`: de-identified copies are
            kept in the place of what came, and files are told by their number; None to keep all as it is.
        most_bytes: Of all files together; None for no limit but the zip's own.
        progress: Called with how many files are done and how many there are.

    Returns:
        What became of them; ingesting the same again changes nothing.

    Raises:
        InputError: There is no file, the zip is refused, the files are too large together, the store is full, or no
            file of all is DICOM.
    """
    members = list(files_in(source))
    whole = sum(member.size for member in members)
    if most_bytes is not None and whole > most_bytes:
        got, most = f"{whole / 1e6:.0f} MB", f"at most {most_bytes / 1e6:.0f} MB"
        raise InputError(f"{source.name}", got=got, expected=most, hint="send it in parts")
    added, known, left_out, failed = 0, 0, 0, 0
    found: dict[str, None] = {}
    refused: list[str] = []
    with tempfile.TemporaryDirectory(prefix=ASIDE, dir=studies.folder) as aside:
        for number, member in enumerate(members, start=1):
            name = Path(member.path).name
            try:
                if not is_dicom(member.path) or name.upper() == "DICOMDIR":
                    left_out += 1
                    continue
                study_uid, new = _keep(member.path, studies, Path(aside), origin, deidentify)
                found.setdefault(study_uid)
                added, known = added + new, known + (not new)
            except SpiculaError as error:
                failed += 1
                if len(refused) < MOST_REASONS:
                    refused.append(f"{name}: {error}" if deidentify is None else _unnamed(error, member.path, number))
            finally:
                if progress is not None:
                    progress(number, len(members))
    if not found:
        hint = refused[0] if refused else "give the folder or zip that holds the DICOM files"
        raise InputError(f"{source.name}", got=f"{len(members)} files, none a DICOM instance", hint=hint)
    return Ingested(added, known, tuple(found), left_out, tuple(refused), failed)


def _unnamed(error: SpiculaError, path: str, number: int) -> str:
    """Why a file was refused, without its name: it may be a patient's."""
    return f"file {number}: {str(error).replace(path, 'it').replace(Path(path).name, 'it')}"


def _keep(path: str, studies: Studies, aside: Path, origin: str, deidentify: bytes | None) -> tuple[str, bool]:
    """Keep one file of a folder or zip; its study, and whether it is new."""
    file = Path(path)
    if SEPARATOR in path and not file.exists():
        file = aside / "member.dcm"
        with open_member(path) as packed, file.open("wb") as stream:
            shutil.copyfileobj(packed, stream, 2**20)
    return keep(file, studies, origin=origin, deidentify=deidentify)


def keep(file: Path, studies: Studies, *, origin: str, deidentify: bytes | None = None) -> tuple[str, bool]:
    """Keep one instance.

    Args:
        file: A DICOM file.
        studies: Of the store.
        origin: How it came.
        deidentify: As for :func:`ingest`.

    Returns:
        Its study, as the store has it, and whether it is new. The same data set that came before by another way, with
        other words of the file about itself, is not.

    Raises:
        InputError: It cannot be kept.
    """
    if deidentify is None:
        return _added(file, studies, origin=origin, deidentified=False)
    with tempfile.TemporaryDirectory(prefix=ASIDE, dir=studies.folder) as folder:
        copy = Path(folder) / "deidentified.dcm"
        deidentified(file, copy, secret=deidentify)
        return _added(copy, studies, origin=origin, deidentified=True)


def _added(file: Path, studies: Studies, **about: str | bool) -> tuple[str, bool]:
    facts = instance_facts(file)
    study_uid = str(facts.study["study_uid"])
    try:
        return study_uid, studies.add(file, NewInstance({**facts.study, **about}, facts.series, facts.instance))
    except InputError as error:
        if "other bytes" not in str(error.got) or not _is_there(file, studies, facts.instance):
            raise
        return study_uid, False


def _is_there(file: Path, studies: Studies, instance: Mapping[str, Any]) -> bool:
    there = studies.instance(str(instance["sop_instance_uid"]))
    return same_data_set(file, studies.path(there))
