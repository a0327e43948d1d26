"""What arrives is analyzed by rules and its results are sent back, each study once, whatever is killed and when.

The watch remembers nothing itself: what was asked for stands in the queue of the store, where also its first start is
kept as a job that is done at once, so that what came while it was down is not passed over.
"""

from __future__ import annotations

import threading
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from spicula.store.jobs import Job

FILE = "rules.toml"
WATCH = "watch"
"""The kind of the jobs that keep since when is watched."""

AGAIN_S = 600.0
"""What an archive did not take is sent again after this: it may have been away."""

SETTLED_S = 60.0
"""A study of which nothing new came for so long is complete."""

BY = "watch"
"""Who asks."""

_PAGE = 200

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
        self._other: dict[str, int] = {}  # instances of studies that match no rule
        self._through: set[str] = set()
        self._told: set[str] = set()

    def look(self) -> int:
        """Look through the store once; how many jobs were asked for."""
        asked = 0
        for studies in self._pages():
            studies = [one for one in studies if one["study_uid"] not in self._through and self._match(one)]
            uids = [str(one["study_uid"]) for one in studies]
            analyses = self.place.queue.latest(ANALYZE, uids)
            sends = self._sends(uids)
            for study in studies:
                analysis = analyses.get(str(study["study_uid"]))
                if analysis is None:
                    asked += self._ask_analysis(study)
                elif analysis.state == "done":
                    asked += self._ask_sends(study, sends)
                elif not analysis.is_open and analysis.id not in self._told:
                    self._told.add(analysis.id)  # it is looked at again: somebody may ask for it anew
                    self.say(f"study {analysis.key}: its analysis {analysis.state}: {analysis.message}")
        return asked

    def _pages(self) -> Iterator[list[Mapping[str, Any]]]:
        """Studies received since, the newest first, some at a time."""
        offset = 0
        while True:
            rows = self.place.studies.list(limit=_PAGE, offset=offset).rows
            new = [row for row in rows if str(row["received_at"]) >= self.since]
            if new:
                yield new
            if len(new) < _PAGE:
                return
            offset += _PAGE

    def _match(self, study: Mapping[str, Any]) -> bool:
        uid, count = str(study["study_uid"]), int(study["instances"] or 0)
        if self._other.get(uid) == count:
            return False
        series = self.place.studies.series(uid)
        if any(rule.matches(study, one) for rule in self.rules for one in series):
            self._other.pop(uid, None)
            return True
        self._other[uid] = count
        return False

    def _ask_analysis(self, study: Mapping[str, Any]) -> int:
        uid = str(study["study_uid"])
        if time.time() - newest_s(self.place, uid) < self.settled_s:
            return 0
        ask_analysis(self.place, uid, by=BY, once=True)
        self.say(f"study {uid}: matches, to be analyzed")
        return 1

    def _sends(self, uids: Sequence[str]) -> dict[str, Job]:
        keys = [send_key(uid, name, self.what) for uid in uids for name in self.sent_since]
        return self.place.queue.latest(SEND, keys)

    def _ask_sends(self, study: Mapping[str, Any], sends: Mapping[str, Job]) -> int:
        uid, asked, pending = str(study["study_uid"]), 0, False
        for name, since in self.sent_since.items():
            if str(study["received_at"]) < since:
                continue
            last = sends.get(send_key(uid, name, self.what))
            pending |= last is None or (last.state != "done" and last.state != "cancelled")
            if last is None:
                ask_send(self.place, uid, name, self.what, by=BY, once=True, archives=self.archives)
                self.say(f"study {uid}: analyzed, to be sent to {name}")
                asked += 1
            elif last.state == "failed" and str(last.ended_at) < later(-AGAIN_S):
                self.place.queue.again(last.id, by=BY)
                self.say(f"study {uid}: to be sent to {name} once more")
                asked += 1
        if not pending:
            self._through.add(uid)
        return asked


def first_start(place: Workplace, of: str) -> str:
    """When a watch of something was first started: now, if it never was."""
    mark = place.queue.latest(WATCH, [of]).get(of) or place.queue.ask(WATCH, of, {}, by=BY, once=True)
    name = worker_name()
    while (job := place.queue.take(name, kinds=(WATCH,))) is not None:
        place.queue.end(job, name)
    return mark.created_at


def newest_s(place: Workplace, study_uid: str) -> float:
    """When the newest instance of a study came into the store, in seconds since 1970."""
    newest = 0.0
    for series in place.studies.series(study_uid):
        for row in place.studies.instances(str(series["series_uid"])):
            try:
                newest = max(newest, place.studies.path(row).stat().st_mtime)
            except FileNotFoundError:  # the study is being removed
                continue
    return newest
