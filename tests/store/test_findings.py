"""Findings keep every change, with who and when."""

from __future__ import annotations

import threading

import pytest

from spicula.core.errors import InputError
from spicula.store.findings import PROGRAM, Findings, Overtaken
from spicula.store.studies import Studies

from .test_studies import file, new

RECORD = {"findings": [{"id": "1", "diameter_mm": 8.0}, {"id": "2", "diameter_mm": 4.0}], "schema": "spicula-report/1"}
PLACE = {"study_uid": "1.1", "series_uid": "1.1.1"}


@pytest.fixture
def findings(engine, tmp_path) -> Findings:
    Studies(engine, tmp_path / "store").add(file(tmp_path, b"a"), new("1.1.1.1"))
    return Findings(engine)


def test_an_analysis_kept_twice_is_one(findings) -> None:
    first = findings.keep_analysis("job1", **PLACE, record=RECORD, folder="analyses/job1")
    again = findings.keep_analysis("job1", **PLACE, record=RECORD, folder="analyses/job1")
    assert first == again
    assert [one.content["id"] for one in first] == ["1", "2"]
    assert {(one.state, one.version, one.changed_by) for one in first} == {("proposed", 1, PROGRAM)}
    assert findings.analyses("1.1")[0]["record"] == RECORD


def test_what_people_say_is_kept_beside_what_the_program_said(findings) -> None:
    found = findings.keep_analysis("job1", **PLACE, record=RECORD, folder="f")[0]
    findings.change(found.id, seen=1, by="ada", state="rejected")
    findings.change(found.id, seen=2, by="bob", content={"id": "1", "diameter_mm": 9.0})
    now = findings.get(found.id)
    assert (now.state, now.version, now.changed_by, now.content["diameter_mm"]) == ("accepted", 3, "bob", 9.0)
    history = findings.history(found.id)
    assert [(one.what, one.by) for one in history] == [("proposed", PROGRAM), ("rejected", "ada"), ("corrected", "bob")]
    assert history[0].content == RECORD["findings"][0]
    assert [one.at for one in history] == sorted(one.at for one in history)


def test_a_change_that_was_overtaken_is_refused(findings) -> None:
    added = findings.add(**PLACE, content={"diameter_mm": 5.0}, by="ada")
    assert (added.state, added.analysis_id) == ("accepted", None)
    refused: list[str] = []

    def change(name: str) -> None:
        try:
            findings.change(added.id, seen=1, by=name, state="rejected")
        except Overtaken as error:
            refused.append(str(error))

    threads = [threading.Thread(target=change, args=(name,)) for name in ("ada", "bob", "cid")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 2
    assert "changed it meanwhile" in refused[0]
    assert len(findings.history(added.id)) == 2


def test_nonsense_is_refused(findings) -> None:
    added = findings.add(**PLACE, content={}, by="ada")
    with pytest.raises(InputError, match="a state or a content"):
        findings.change(added.id, seen=1, by="ada")
    with pytest.raises(InputError, match="one of proposed"):
        findings.change(added.id, seen=1, by="ada", state="maybe")
    for lost in (
        lambda: findings.get("x"),
        lambda: findings.history("x"),
        lambda: findings.change("x", seen=1, by="a", state="accepted"),
    ):
        with pytest.raises(InputError, match="none of this id"):
            lost()
