"""An index that a server searches again and again, opened once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from spicula.core.errors import InputError
from spicula.pipelines.index import is_database, open_place
from spicula.retrieval.index import Index
from spicula.retrieval.opening import backend_built
from spicula.retrieval.store import DATABASE

Identity = tuple[int, int, str | None] | None


@dataclass(slots=True, eq=False)
class _Held:
    """An open index and how many use it now; whoever leaves last closes one that is stale."""

    place: str
    identity: Identity
    index: Index
    users: int = 0
    stale: bool = False


class OpenedIndex:
    """Keeps an index open; changes that others make to it show. Threads may share it."""

    def __init__(self) -> None:
        self._held: _Held | None = None
        self._lock = threading.Lock()

    @contextmanager
    def at(self, place: str) -> Iterator[Index]:
        """The index of a place, opened anew only where another one lies there by now.

        Args:
            place: Folder or database.

        Raises:
            InputError: There is none, or it is damaged.
        """
        with self._lock:
            held = self._fitting(place)
            held.users += 1
        try:
            yield held.index
        finally:
            with self._lock:
                held.users -= 1
                _close_unused(held)

    def _fitting(self, place: str) -> _Held:
        held, identity = self._held, _identity(place)
        if held is not None and not (held.place == place and held.identity == identity and _answers(held.index)):
            held.stale, self._held = True, None
            _close_unused(held)
            held = None
        if held is None:
            held = self._held = _Held(place, identity, open_place(place))
        return held


def _identity(place: str) -> Identity:
    """Which file lies there, and what was built to search by: a folder may be put in the place of another."""
    if is_database(place):
        return None
    try:
        stat = (Path(place) / DATABASE).stat()
    except OSError:
        return None
    return stat.st_dev, stat.st_ino, backend_built(Path(place))


def _answers(index: Index) -> bool:
    """Whether it is still the one that was opened: one in a database may have been made anew, or be away."""
    try:
        return bool(index.generation)
    except InputError:
        return False


def _close_unused(held: _Held) -> None:
    if held.stale and not held.users:
        held.index.close()
