"""Frames of stored instances, as fast as many readers scroll: what was found out of an instance is kept.

Scrolling asks for the same instances again and again. The first request looks up the instance's row and reads its
header; later ones read the frame's bytes and nothing else.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from spicula.dicom.served import EXPLICIT_LITTLE, OCTETS, FramePlaces, frame_places, frames
from spicula.pipelines.dicomweb import instances_of
from spicula.pipelines.workplace import Workplace

Found: TypeAlias = tuple[list[bytes], str, str]
State: TypeAlias = tuple[int, int, int]

MOST = 50_000
"""Instances of which is kept where their frames lie: some 20 MB."""


@dataclass(slots=True, eq=False)
class ServedFrames:
    """Hands out the frames of a store.

    Args:
        place: The store.
        most: So many instances are kept; the ones that nobody asked for longest are forgotten.
    """

    place: Workplace
    most: int = MOST
    _kept: OrderedDict[tuple[str, str, str], tuple[Path, State, FramePlaces | None]] = field(
        default_factory=OrderedDict
    )
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def read(self, study_uid: str, series_uid: str, sop_instance_uid: str, numbers: Sequence[int]) -> Found:
        """Frames as they are stored.

        Args:
            study_uid: Of the study.
            series_uid: Of the series.
            sop_instance_uid: Of the instance.
            numbers: Which, from 1.

        Returns:
            As :func:`spicula.dicom.served.frames`.

        Raises:
            InputError: There is no such instance or frame, or its file cannot be read.
        """
        key = (study_uid, series_uid, sop_instance_uid)
        with self._lock:
            known = self._kept.get(key)
            if known is not None:
                self._kept.move_to_end(key)
        if known is not None:
            path, state, places = known
            try:
                if _state(path) == state:
                    return _read(path, places, numbers)
            except OSError:  # removed meanwhile: the long way says so
                pass
        return self._long_way(key, numbers)

    def _long_way(self, key: tuple[str, str, str], numbers: Sequence[int]) -> Found:
        with self._lock:
            self._kept.pop(key, None)
        (row,) = instances_of(self.place.studies, *key)
        path = self.place.studies.path(row)
        state = _state(path)
        places = frame_places(path)
        with self._lock:
            self._kept[key] = (path, state, places)
            if len(self._kept) > self.most:
                self._kept.popitem(last=False)
        return _read(path, places, numbers)


def _read(path: Path, places: FramePlaces | None, numbers: Sequence[int]) -> Found:
    """By their places where they have such; else out of the whole file, which is then read once a request."""
    return frames(path, numbers) if places is None else (places.read(path, numbers), OCTETS, EXPLICIT_LITTLE)


def _state(path: Path) -> State:
    """What changes when another file takes a path."""
    told = os.stat(path)
    return told.st_ino, told.st_mtime_ns, told.st_size
