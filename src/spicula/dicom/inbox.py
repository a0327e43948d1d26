"""Where instances from a network arrive: each lies in its folder whole or not at all, on the disk before it is told."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pydicom
from pydicom.uid import UID

from spicula.core.errors import InputError
from spicula.core.files import ASIDE, to_disk
from spicula.dicom.archive import parse
from spicula.dicom.remote import safe_name

INCOMING = f"{ASIDE}incoming"
"""The folder, within the one that receives, in which files are written aside."""

_FACT_TAGS = [0x00080016, 0x00080018, 0x0020000D, 0x0020000E, 0x7FE00008, 0x7FE00009, 0x7FE00010]
_PIXELS = (0x7FE00008, 0x7FE00009, 0x7FE00010)


@dataclass(frozen=True, slots=True)
class Arrived:
    """One instance that arrived, and its file."""

    path: Path
    study_uid: str
    series_uid: str
    sop_instance_uid: str
    sop_class_uid: str


class Inbox:
    """A folder that takes in instances; one process at a time.

    Files are named after their UIDs where these have the form of one, else after a hash: no UID leads out of the
    folder. What a process that was killed left aside is removed as the next one opens the folder.

    Args:
        folder: Where instances go; made if it is not there.
        by_series: Give each series a folder of its own.
        reserve_bytes: Space to leave on the disk; an instance that would take of it is refused like on a full disk.

    Raises:
        InputError: Another process receives into the folder, or it cannot be written.
    """

    def __init__(self, folder: Path, *, by_series: bool = False, reserve_bytes: int = 0) -> None:
        self.folder, self.by_series, self.reserve_bytes = Path(folder), by_series, reserve_bytes
        self._incoming = self.folder / INCOMING
        try:
            self._incoming.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self._incoming, os.O_RDONLY)
        except OSError as error:
            raise InputError(str(folder), got=error.strerror, expected="a folder to receive into") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise InputError(str(folder), got="a folder into which another process receives") from error
        for stale in self._incoming.iterdir():
            stale.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let the folder go; the place aside is removed."""
        if self._lock < 0:
            return
        for left in self._incoming.iterdir():
            left.unlink(missing_ok=True)
        with suppress(OSError):
            self._incoming.rmdir()
        os.close(self._lock)
        self._lock = -1

    @contextmanager
    def aside(self, size: int = 0) -> Iterator[Path]:
        """A path to write one instance to, in one file; it is removed where the block does not ``keep`` it.

        Args:
            size: Bytes that will be written, where it is known.

        Yields:
            A path at which there is no file yet.

        Raises:
            OSError: ``ENOSPC`` where the disk lacks the space.
        """
        self.check_space(size)
        path = self._incoming / uuid.uuid4().hex
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def check_space(self, size: int) -> None:
        """Refuse what the disk has no space for.

        Raises:
            OSError: ``ENOSPC``.
        """
        if shutil.disk_usage(self.folder).free < size + self.reserve_bytes:
            raise OSError(errno.ENOSPC, "no space left but the reserve", str(self.folder))

    def keep(
        self,
        aside: Path,
        *,
        study_uid: str = "",
        series_uid: str = "",
        sop_instance_uid: str = "",
        sop_class_uid: str = "",
    ) -> Arrived:
        """Check a whole file and move it to its place; when this returns, it is on the disk.

        Args:
            aside: The file, as from ``aside``.
            study_uid: What the instance must belong to, if it is known, like the other UIDs.
            series_uid: As above.
            sop_instance_uid: As above.
            sop_class_uid: As above.

        Returns:
            What arrived; an older file of the same instance is replaced.

        Raises:
            InputError: The file is cut short, is not DICOM, or is another instance than was asked for.
            OSError: It cannot be written.
        """
        found = facts_of(aside)
        wanted = Arrived(aside, study_uid, series_uid, sop_instance_uid, sop_class_uid)
        for name in ("study_uid", "series_uid", "sop_instance_uid", "sop_class_uid"):
            if getattr(wanted, name) not in ("", getattr(found, name)):
                raise InputError(
                    f"{name} of an instance", got=repr(getattr(found, name))[:80], expected=getattr(wanted, name)
                )
        target = self.place_of(found.series_uid, found.sop_instance_uid)
        if not target.parent.is_dir():
            target.parent.mkdir(exist_ok=True)
            to_disk(self.folder)
        to_disk(aside)
        os.replace(aside, target)
        to_disk(target.parent)
        return Arrived(target, found.study_uid, found.series_uid, found.sop_instance_uid, found.sop_class_uid)

    def place_of(self, series_uid: str, sop_instance_uid: str) -> Path:
        """Where an instance lies, or would."""
        folder = self.folder / safe_name(series_uid) if self.by_series else self.folder
        return folder / f"{safe_name(sop_instance_uid)}.dcm"


def facts_of(path: Path) -> Arrived:
    """The UIDs of a file, which is walked through to its end.

    Raises:
        InputError: It is cut short, is not DICOM, lacks a UID, or is an image without pixels.
    """
    try:
        dataset, end = _walked(path)
    except InputError as error:
        raise InputError("an instance", got="a file that is not DICOM") from error
    except Exception as error:  # pydicom raises whatever a broken file makes it stumble over
        raise InputError("an instance", got=f"a broken data set ({type(error).__name__})") from error
    if end > path.stat().st_size or any(_short(dataset.get_item(tag)) for tag in _FACT_TAGS if tag in dataset):
        raise InputError("an instance", got="a data set that is cut short")
    uids = [_text(dataset, tag) for tag in (0x0020000D, 0x0020000E, 0x00080018, 0x00080016)]
    if _holds_pixels(uids[3]) and not any(tag in dataset for tag in _PIXELS):
        raise InputError("an instance", got="an image without pixels, maybe cut short")
    if not all(uids):
        raise InputError("an instance", got="a data set without study, series, instance or class UID")
    return Arrived(path, *uids)


def readable(path: Path) -> Arrived:
    """The UIDs of a file that shall be sent.

    Raises:
        InputError: It is missing, not DICOM or not whole; the message names it.
    """
    try:
        return facts_of(path)
    except (InputError, OSError) as error:
        raise InputError(
            f"{path}: cannot be sent", got=getattr(error, "got", error), expected="a whole DICOM file"
        ) from error


def _walked(path: Path) -> tuple[pydicom.Dataset, int]:
    """The elements wanted, long ones passed over, and the place at which the data set ends by its own account."""
    parse(str(path), pixels=False, tags=[0x00080018])  # refuses what is not DICOM, or inflates without end
    with path.open("rb") as file:
        dataset = pydicom.dcmread(file, force=True, specific_tags=_FACT_TAGS, defer_size=1024)
        return dataset, file.tell()


def _holds_pixels(sop_class_uid: str) -> bool:
    name = UID(sop_class_uid, validation_mode=0).name
    return "Image Storage" in name or name == "Segmentation Storage"


def _short(element: Any) -> bool:
    """Whether an element, as it was read, has fewer bytes than it says."""
    value, length = element.value, getattr(element, "length", 0)
    return isinstance(value, bytes) and length != 0xFFFFFFFF and len(value) < length


def _text(dataset: pydicom.Dataset, tag: int) -> str:
    """A UID as it is written: pydicom's own checks would warn of odd ones."""
    if tag not in dataset:
        return ""
    value = dataset.get_item(tag).value
    text = value.decode("ascii", "backslashreplace") if isinstance(value, bytes) else str(value or "")
    return text.strip(" \0")
