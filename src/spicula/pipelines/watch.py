"""What arrives is analyzed by rules and its results are sent back, each study once, whatever is killed and when.

The watch remembers nothing itself but when it last looked: what was asked for stands in the queue of the store, where
also its first start is kept as a job that is done at once, so that what came while it was down is not passed over. A
look asks the database for what came and what ended since the last one, in a few queries however large the store is.
"""

from __future__ import annotations

import math
import threading
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeAlias

from sqlalchemy.exc import OperationalError

from spicula.core.errors import InputError
from spicula.pipelines.archives import archive_named
from spicula.pipelines.exchange import SEND, WHAT, ask_send, send_key
from spicula.pipelines.worker import ANALYZE, ask_analysis, worker_name
from spicula.pipelines.workplace import Workplace
from spicula.store.clock import later
from spicula.store.watched import Changed, Step, WatchedStudy, watched_studies

FILE = "rules.toml"
WATCH = "watch"
"""The kind of the jobs that keep since when is watched."""

AGAIN_S = 600.0
"""What an archive did not take is sent again after this: it may have been away."""

SETTLED_S = 60.0
"""A study of which nothing new came for so long is complete."""

BY = "watch"
"""Who asks."""

OVERLAP_S = 600.0
"""A look goes back so much longer than to the last one: clocks differ, and what is written may wait for others."""

ALL_S = 3600.0
"""So often it looks through all studies that it ever may have to do with: nothing is missed, however late it came."""

_ANALYSIS = Step(ANALYZE)

Say: TypeAlias = Callable[[str], None]
"""Takes a sentence of what was done; it names no patient."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What a series must be for its study to be analyzed; whatever is left out is not looked at.

    Args:
        modality: Its modality.
        body_part: The study's Body Part Examined is one of these; ``""`` among them for one that tells none.
        slice_thickness_mm_max: It is not thicker, and tells its thickness.
        description_contains: Its description contains one of these, whatever the case.
        description_lacks: Its description contains none of these.
        images_min: It has so many instances.
    """

    modality: str = "CT"
    body_part: tuple[str, ...] = ()
    slice_thickness_mm_max: float | None = None
    description_contains: tuple[str, ...] = ()
    description_lacks: tuple[str, ...] = ()
    images_min: int = 1

    def __post_init__(self) -> None:
        if self.slice_thickness_mm_max is not None and not self.slice_thickness_mm_max > 0:
            raise InputError("slice_thickness_mm_max", got=self.slice_thickness_mm_max, expected="more than 0 mm")
        if self.images_min < 1:
            raise InputError("images_min", got=self.images_min, expected="at least 1")

    def matches(self, study: Mapping[str, Any], series: Mapping[str, Any]) -> bool:
        """Whether a series of a study, rows of the store, is what is wanted."""
        text = str(series["description"]).casefold()
        parts = {part.strip().casefold() for part in self.body_part}
        thickness, most = series["slice_thickness_mm"], self.slice_thickness_mm_max
        return (
            str(series["modality"]).casefold() == self.modality.casefold()
            and (not parts or str(study["body_part"]).casefold() in parts)
            and (most is None or (thickness is not None and 0 < thickness <= most + 1e-6))
            and (not self.description_contains or any(one.casefold() in text for one in self.description_contains))
            and not any(one.casefold() in text for one in self.description_lacks)
            and series["instances"] >= self.images_min
        )


def load_rules(path: Path) -> tuple[Rule, ...]:
    """Read rules from TOML, a table ``[[rule]]`` each; a study is analyzed if one of them matches.

    Raises:
        InputError: There is no such file, it is no TOML, holds no rule, or an unknown key or a wrong value.
    """
    try:
        content = tomllib.loads(path.read_bytes().decode("utf-8"))
    except OSError as error:
        raise InputError(str(path), got=error.strerror, expected="a file of rules") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        got = str(error) if isinstance(error, tomllib.TOMLDecodeError) else "bytes that are no UTF-8"
        raise InputError(str(path), got=got, expected="TOML: a table [[rule]] for each rule") from None
    tables = content.get("rule")
    if set(content) != {"rule"} or not isinstance(tables, list) or not all(isinstance(one, dict) for one in tables):
        raise InputError(str(path), got=", ".join(content)[:80] or "nothing", expected="tables [[rule]] alone")
    return tuple(_rule(f"{path}: rule {number}", table) for number, table in enumerate(tables, start=1))


def _rule(where: str, table: Mapping[str, Any]) -> Rule:
    known = [one.name for one in fields(Rule)]
    values: dict[str, Any] = {}
    for key, value in table.items():
        several = [value] if isinstance(value, str) else value
        if key not in known:
            raise InputError(f"{where}: key {key[:40]!r}", got="none that is known", expected=", ".join(known))
        if key == "modality":
            fits, wanted = isinstance(value, str), "a text"
        elif key == "images_min":
            fits, wanted = type(value) is int, "a whole number"
        elif key == "slice_thickness_mm_max":
            fits, wanted = type(value) in (int, float), "a number of mm"
        else:
            fits, wanted = isinstance(several, list) and all(isinstance(one, str) for one in several), "texts"
            value = tuple(several) if fits else ()
        if not fits:
            raise InputError(f"{where}: {key}", got=f"a {type(table[key]).__name__}", expected=wanted)
        values[key] = value
    try:
        return Rule(**values)
    except InputError as error:
        raise InputError(f"{where}: {error.what}", got=error.got, expected=error.expected) from None


def watch(
    place: Workplace, rules: Sequence[Rule], *, destinations: Sequence[str] = (), stop: threading.Event | None = None,
    idle_s: float = 5.0, settled_s: float = SETTLED_S, since: str | None = None, what: Sequence[str] = WHAT,
    archives: Path | None = None, say: Say | None = None,
) -> None:  # fmt: skip
    """Ask for the analysis of studies that match, and for their results to be sent, until told to stop.

    Workers do what is asked. Any number of watches may run.

    Args:
        place: The store.
        rules: A study of which one series matches one of them is analyzed.
        destinations: Archives that its results are sent to.
        stop: Set from elsewhere.
        idle_s: How long to wait between two looks.
        settled_s: See :data:`SETTLED_S`.
        since: Only studies received since, UTC in ISO 8601. If None: those since a watch of this store was first
            started, and sent to an archive those since one was first started with it.
        what: What is sent, ``"sr"``, ``"seg"`` or both.
        archives: File of the archives; that of the store if None.
        say: Called with what was done.

    Raises:
        InputError: There is no rule, or an archive is not there or does not allow to be sent to.
    """
    watcher = Watcher(
        place, rules, destinations=destinations, settled_s=settled_s, since=since, what=what, archives=archives, say=say
    )
    stop = stop or threading.Event()
    while not stop.is_set():
        try:
            watcher.look()
        except OperationalError:  # it is looked for again; what was asked stands there
            watcher.say("the store's database cannot be reached")
        stop.wait(idle_s)


class Watcher:
    """A watch that looks when it is told to; arguments as for :func:`watch`."""

    def __init__(
        self, place: Workplace, rules: Sequence[Rule], *, destinations: Sequence[str] = (),
        settled_s: float = SETTLED_S, since: str | None = None, what: Sequence[str] = WHAT,
        archives: Path | None = None, say: Say | None = None,
    ) -> None:  # fmt: skip
        if not rules:
            raise InputError("rules", got="none", expected="at least one")
        for name in destinations:
            archive_named(archives or place.folder, name, may="send")
        self.place, self.rules, self.settled_s = place, tuple(rules), settled_s
        self.what = tuple(name for name in WHAT if name in what)
        self.archives, self.say = archives, say or (lambda _: None)
        self.since = since or first_start(place, "studies")
        self.sent_since = {name: since or first_start(place, f"to {name}") for name in dict.fromkeys(destinations)}
        self._sends = {name: Step(SEND, send_key("", name, self.what)) for name in self.sent_since}
        self._looked_s, self._all_s = -math.inf, -math.inf  # when it last looked, and when through all
        self._told: set[str] = set()

    def look(self) -> int:
        """Look through what is new in the store once, now and then through all; how many jobs were asked for."""
        begun_s, asked = time.monotonic(), 0
        through_all = begun_s - self._all_s >= ALL_S
        changed = None if through_all else self._changed(begun_s - self._looked_s)
        steps = (_ANALYSIS, *self._sends.values())
        for one in watched_studies(self.place.engine, steps, since=self.since, changed=changed):
            if any(rule.matches(one.study, series) for rule in self.rules for series in one.series):
                asked += self._ask(one)
        self._looked_s, self._all_s = begun_s, begun_s if through_all else self._all_s
        return asked

    def _changed(self, ago_s: float) -> Changed:
        """What may have changed since a look so long ago; much of it is looked at again."""
        ago_s += OVERLAP_S
        return Changed(later(-ago_s - self.settled_s), later(-ago_s - AGAIN_S), later(-AGAIN_S))

    def _ask(self, one: WatchedStudy) -> int:
        uid, analysis = str(one.study["study_uid"]), one.jobs.get(_ANALYSIS)
        try:
            if analysis is None:
                return self._ask_analysis(one)
            if analysis.state == "done":
                return self._ask_sends(one)
        except InputError:
            if _is_there(self.place, uid):
                raise
            return 0  # it was removed meanwhile
        if not analysis.is_open and analysis.id not in self._told:
            self._told.add(analysis.id)  # it is looked at again: somebody may ask for it anew
            self.say(f"study {uid}: its analysis {analysis.state}: {analysis.message}")
        return 0

    def _ask_analysis(self, one: WatchedStudy) -> int:
        uid = str(one.study["study_uid"])
        if str(one.study["newest_at"]) > later(-self.settled_s):
            return 0
        ask_analysis(self.place, uid, by=BY, once=True)
        self.say(f"study {uid}: matches, to be analyzed")
        return 1

    def _ask_sends(self, one: WatchedStudy) -> int:
        uid, asked = str(one.study["study_uid"]), 0
        for name, since in self.sent_since.items():
            if str(one.study["received_at"]) < since:
                continue
            last = one.jobs.get(self._sends[name])
            if last is None:
                ask_send(self.place, uid, name, self.what, by=BY, once=True, archives=self.archives)
                self.say(f"study {uid}: analyzed, to be sent to {name}")
                asked += 1
            elif last.state == "failed" and str(last.ended_at) < later(-AGAIN_S):
                self.place.queue.again(last.id, by=BY)
                self.say(f"study {uid}: to be sent to {name} once more")
                asked += 1
        return asked


def _is_there(place: Workplace, study_uid: str) -> bool:
    try:
        place.studies.get(study_uid)
    except InputError:
        return False
    return True


def first_start(place: Workplace, of: str) -> str:
    """When a watch of something was first started: now, if it never was."""
    mark = place.queue.latest(WATCH, [of]).get(of) or place.queue.ask(WATCH, of, {}, by=BY, once=True)
    name = worker_name()
    while (job := place.queue.take(name, kinds=(WATCH,))) is not None:
        place.queue.end(job, name)
    return mark.created_at
