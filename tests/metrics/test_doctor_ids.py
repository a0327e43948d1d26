from __future__ import annotations

import pytest

from spicula.metrics.doctor.ids import match_ids

UIDS = [f"1.3.6.1.4.1.14519.5.2.1.6279.6001.{7**33 * (n + 3) % 10**27}" for n in range(40)]
NUMBERS = [f"{n:05d}" for n in range(5, 800, 7)]


def matched(given: list[str], wanted: list[str]):  # type: ignore[no-untyped-def]
    return match_ids(given, wanted, what="detections", of="series list", rows="scans")


def test_ids_that_match_draw_no_complaint() -> None:
    found = matched(UIDS[:10], UIDS)
    assert found.complaints == ()
    assert found.found == {name: name for name in UIDS[:10]}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda uid: uid + ".mhd", "ids.ending"),
        (lambda uid: uid + "_clean.npy", "ids.ending"),
        (lambda uid: f"/data/subset3/{uid}", "ids.folder"),
        (lambda uid: f"C:\\luna\\{uid}.mhd", "ids.folder"),
        (lambda uid: f"'{uid}'", "ids.quotes"),
        (lambda uid: f"['{uid}']", "ids.quotes"),
        (lambda uid: uid.replace(".", "_"), "ids.separators"),
        (lambda uid: "LUNA16_" + uid, "ids.affix"),
        (lambda uid: uid + "-scan", "ids.affix"),
        (lambda uid: uid.rpartition(".")[2], "ids.affix"),
        (lambda uid: f"cases/LUNA16_{uid}.nii.gz", "ids.affix"),
        (lambda uid: uid[:-1], "ids.cut"),
    ],
)
def test_a_change_of_uids_is_named_and_undone(change, code: str) -> None:  # type: ignore[no-untyped-def]
    found = matched([change(uid) for uid in UIDS], UIDS)
    assert [c.code for c in found.complaints] == [code]
    assert found.complaints[0].severity == "error"
    assert {change(uid): uid for uid in UIDS} == dict(found.found)
    assert found.complaints[0].evidence["matched"] == 0
    assert found.complaints[0].evidence["matched_after"] == len(UIDS)


@pytest.mark.parametrize(
    ("change", "code", "mend"),
    [
        (lambda name: name.lstrip("0"), "ids.leading-zeros", "zfill(5)"),
        (lambda name: f"{int(name)}.0", "ids.decimal", "zfill(5)"),
        (lambda name: "00" + name, "ids.leading-zeros", "lstrip"),
        (lambda name: name.lstrip("0") + ".mhd", "ids.ending", "zfill(5)"),
    ],
)
def test_a_change_of_numbers_is_named_and_undone(change, code: str, mend: str) -> None:  # type: ignore[no-untyped-def]
    found = matched([change(name) for name in NUMBERS], NUMBERS)
    assert [c.code for c in found.complaints] == [code]
    assert mend in found.complaints[0].mend
    assert {change(name): name for name in NUMBERS} == dict(found.found)


def test_case_is_named() -> None:
    found = matched([name.lower() for name in ("LIDC-0001", "LIDC-0002")], ["LIDC-0001", "LIDC-0002"])
    assert [c.code for c in found.complaints] == ["ids.case"]


def test_a_part_that_lost_its_zeros_is_counted() -> None:
    short = [f"{n}" for n in range(888)]
    found = matched(short, [f"{n:03d}" for n in range(888)])
    complaint = found.complaints[0]
    assert complaint.code == "ids.leading-zeros"
    assert (complaint.evidence["matched"], complaint.evidence["matched_after"]) == (788, 888)
    assert "788 of 888 scans" in complaint.problem
    assert "--pad-ids 3" in complaint.mend


def test_ids_read_as_numbers_are_lost_and_said_so() -> None:
    found = matched(["1.3e+30", "1.3e+30", "2.4E+31"], UIDS)
    assert [c.code for c in found.complaints] == ["ids.numbers"]
    assert found.complaints[0].severity == "error"
    assert "as text" in found.complaints[0].mend


def test_unknown_ids_are_an_error_a_warning_or_a_note() -> None:
    assert matched(["x1", "y22"], UIDS).complaints[0].severity == "error"
    assert matched([*UIDS[:20], "elsewhere"], UIDS).complaints[0].severity == "warning"
    assert matched([*UIDS, "elsewhere"], UIDS).complaints[0].severity == "note"
    assert matched([*UIDS, "elsewhere"], UIDS).complaints[0].code == "ids.unknown"


def test_no_change_is_invented_between_foreign_ids() -> None:
    other = [f"patient-{n}" for n in range(30)]
    found = matched(other, UIDS)
    assert [c.code for c in found.complaints] == ["ids.unknown"]
    assert found.found == {}


def test_numbers_that_would_be_ambiguous_without_zeros_are_left_alone() -> None:
    found = matched(["7"], ["07", "007"])
    assert found.found == {}
