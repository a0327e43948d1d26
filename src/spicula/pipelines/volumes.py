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
        with self._lock:
            reading = self._reading.setdefault(series_uid, threading.Lock())
        with reading:
            with self._lock:
                if series_uid in self._kept:
                    self._kept.move_to_end(series_uid)
                    return self._kept[series_uid]
            volume = self._read(study_uid, series_uid)
            with self._lock:
                self._kept[series_uid] = volume
                while len(self._kept) > self.most:
                    self._kept.popitem(last=False)
                self._reading.pop(series_uid, None)
            return volume

    def _read(self, study_uid: str, series_uid: str) -> Volume:
        if all(row["series_uid"] != series_uid for row in self.place.studies.series(study_uid)):
            raise InputError(f"series {series_uid[:70]}", got="none of this UID in the study")
        return stored_volume(self.place, study_uid, series_uid)
