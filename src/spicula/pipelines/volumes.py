"""Series of the store as volumes, the last few kept: a reader asks many things of one scan."""

from __future__ import annotations

import threading
from collections import OrderedDict

from spicula.core.errors import InputError
from spicula.core.volume import Volume
from spicula.pipelines.stored_analysis import stored_volume
from spicula.pipelines.workplace import Workplace


class Volumes:
    """Reads a series once and keeps it while it is in use.

    Args:
        place: The store.
        most: So many are kept.
    """

    def __init__(self, place: Workplace, *, most: int = 2) -> None:
        self.place, self.most = place, most
        self._kept: OrderedDict[str, Volume] = OrderedDict()
        self._reading: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    def get(self, study_uid: str, series_uid: str) -> Volume:
        """The volume of a series; who asks for one that another is reading waits for it.

        Raises:
            InputError: There is no such series in the study, or it cannot be read.
        """
        found = [row for row in self.place.studies.series(study_uid) if row["series_uid"] == series_uid]
        if not found:
            raise InputError(f"series {series_uid[:70]}", got="none of this UID in the study")
        key = f"{series_uid} {found[0]['instances']}"  # more images may have come since
        with self._lock:
            reading = self._reading.setdefault(key, threading.Lock())
        try:
            with reading:
                return self._kept_or_read(key, study_uid, series_uid)
        finally:
            with self._lock:
                self._reading.pop(key, None)

    def _kept_or_read(self, key: str, study_uid: str, series_uid: str) -> Volume:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        volume = stored_volume(self.place, study_uid, series_uid)
        with self._lock:
            self._kept[key] = volume
            while len(self._kept) > self.most:
                self._kept.popitem(last=False)
        return volume
