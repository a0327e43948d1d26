"""Studies: bytes and rows that agree, whatever is killed or asked for."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from spicula.core.errors import InputError
from spicula.store.studies import INSTANCES_FOLDER, NewInstance, Studies


@pytest.fixture
def studies(engine, tmp_path) -> Studies:
    return Studies(engine, tmp_path / "store")


def new(sop: str, *, study: str = "1.1", series: str = "1.1.1", patient: str = "P1", **more) -> NewInstance:
    return NewInstance(
        {"study_uid": study, "patient_id": patient, "study_date": "20200102", "origin": "upload", **more},
        {"series_uid": series, "modality": "CT", "number": 1},
        {"sop_instance_uid": sop, "sop_class_uid": "1.2", "transfer_syntax_uid": "1.2.1", "number": int(sop[-1])},
    )  # fmt: skip


def file(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "given.dcm"
    path.write_bytes(content)
    return path


def test_an_instance_is_kept_once_and_read_back(studies, tmp_path) -> None:
    given = file(tmp_path, b"pixels")
    assert studies.add(given, new("1.1.1.2"))
    assert not studies.add(given, new("1.1.1.2"))
    assert studies.add(file(tmp_path, b"more"), new("1.1.1.1"))
    row = studies.instance("1.1.1.2")
    assert studies.path(row).read_bytes() == b"pixels"
    assert (row["study_uid"], row["bytes"], row["frames"]) == ("1.1", 6, 1)
    assert [one["number"] for one in studies.instances("1.1.1")] == [1, 2]
    assert studies.series("1.1")[0]["bytes"] == studies.bytes_used() == 10
    assert list(studies.damaged()) == []


def test_other_bytes_under_a_known_uid_are_refused(studies, tmp_path) -> None:
    studies.add(file(tmp_path, b"pixels"), new("1.1.1.1"))
    with pytest.raises(InputError, match="other bytes"):
        studies.add(file(tmp_path, b"forged"), new("1.1.1.1"))
    assert studies.path(studies.instance("1.1.1.1")).read_bytes() == b"pixels"


def test_a_series_or_study_of_another_is_refused(studies, tmp_path) -> None:
    studies.add(file(tmp_path, b"a"), new("1.1.1.1"))
    with pytest.raises(InputError, match="another patient"):
        studies.add(file(tmp_path, b"b"), new("1.1.1.2", patient="P2"))
    with pytest.raises(InputError, match=r"expected 1\.1"):
        studies.add(file(tmp_path, b"b"), new("1.1.1.2", study="2.2"))


def test_names_of_files_owe_nothing_to_uids(studies, tmp_path) -> None:
    studies.add(file(tmp_path, b"a"), new("../../etc/passwd.1"))
    path = studies.path(studies.instance("../../etc/passwd.1")).resolve()
    assert path.is_relative_to((tmp_path / "store" / INSTANCES_FOLDER).resolve())


def test_the_list_is_searched_paged_and_counted(studies, tmp_path) -> None:
    for n in range(5):
        patient = "Müller" if n == 3 else f"P{n}"
        one = new(f"{n}.1.1", study=f"{n}", series=f"{n}.1", patient=patient, description=f"Chest {n} 100%_")
        studies.add(file(tmp_path, bytes([n])), one)
    page = studies.list(limit=2)
    assert (page.total, [row["study_uid"] for row in page.rows]) == (5, ["4", "3"])
    assert (page.rows[0]["series"], page.rows[0]["instances"]) == (1, 1)
    assert [row["study_uid"] for row in studies.list(limit=2, offset=4).rows] == ["0"]
    assert [row["study_uid"] for row in studies.list(text="CHEST 2").rows] == ["2"]
    assert studies.list(text="0%_").total == 5
    assert studies.list(text="0%_'; DROP").total == 0
    assert studies.list(patient_id="P1").total == 1
    assert studies.list(date_from="20200103").total == 0


def test_beyond_the_quota_nothing_is_kept(engine, tmp_path) -> None:
    studies = Studies(engine, tmp_path / "store", quota_bytes=10)
    studies.add(file(tmp_path, b"12345678"), new("1.1.1.1"))
    with pytest.raises(InputError, match="raise the quota"):
        studies.add(file(tmp_path, b"1234"), new("1.1.1.2"))
    assert studies.bytes_used() == 8


def test_a_removed_study_leaves_nothing(studies, tmp_path) -> None:
    studies.add(file(tmp_path, b"a"), new("1.1.1.1"))
    path = studies.path(studies.instance("1.1.1.1"))
    assert studies.remove("1.1") == 1
    assert not path.exists()
    for lost in (lambda: studies.get("1.1"), lambda: studies.remove("1.1"), lambda: studies.instance("1.1.1.1")):
        with pytest.raises(InputError, match="none of this UID"):
            lost()
    assert studies.series("1.1") == ()


def test_what_a_kill_left_is_swept_and_damage_is_told(studies, tmp_path) -> None:
    studies.add(file(tmp_path, b"a"), new("1.1.1.1"))
    left = tmp_path / "store" / INSTANCES_FOLDER / "00" / "left.dcm"
    left.parent.mkdir(exist_ok=True)
    left.write_bytes(b"x")
    assert studies.sweep() == 0  # it may be on its way in
    os.utime(left, (time.time() - 7200,) * 2)
    assert studies.sweep() == 1
    studies.path(studies.instance("1.1.1.1")).write_bytes(b"b")
    assert list(studies.damaged()) == ["instance 1.1.1.1: its file has other bytes than it came with"]


def test_two_that_bring_one_uid_at_once_leave_the_first(studies, tmp_path, monkeypatch) -> None:
    studies.add(file(tmp_path, b"pixels"), new("1.1.1.2"))
    known = studies._known
    answers = iter([None])
    monkeypatch.setattr(studies, "_known", lambda uid: next(answers, known(uid)))  # looked before the other was there
    with pytest.raises(InputError, match="other bytes"):
        studies.add(file(tmp_path, b"others"), new("1.1.1.2"))
    assert studies.path(studies.instance("1.1.1.2")).read_bytes() == b"pixels"
    assert list(studies.damaged()) == []
    assert len(list((studies.folder / INSTANCES_FOLDER).glob("*/*"))) == 1
    answers = iter([None])
    assert not studies.add(file(tmp_path, b"pixels"), new("1.1.1.2"))
