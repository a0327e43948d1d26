"""Studies, findings, exports and searches over the page's addresses, on a store that was analyzed."""

from __future__ import annotations

import numpy as np
import pytest
from fastapi.testclient import TestClient

from spicula.pipelines.worker import work
from spicula.pipelines.workplace import open_workplace
from spicula.web.access import Access
from spicula.web.app import make_app
from spicula.web.services import Services

from ..pipelines.search_tiny import Tiny, tiny  # noqa: F401
from .analyzed import CENTER, Analyzed, analyzed, analyzed_once  # noqa: F401
from .test_access import BASE, PASSWORD, logged_in


@pytest.fixture
def place(analyzed: Analyzed):  # noqa: F811
    with open_workplace(analyzed.folder) as opened:
        yield opened


@pytest.fixture
def client(place) -> TestClient:
    return TestClient(make_app(place), base_url=BASE)


def nodule(client: TestClient, study: str) -> dict:
    """The finding at the ball."""
    findings = client.get(f"/api/studies/{study}/findings").json()
    return min(findings, key=lambda one: np.linalg.norm(np.subtract(one["center_xyz_mm"], CENTER)))


def test_the_list_tells_what_was_found(client, analyzed) -> None:  # noqa: F811
    page = client.get("/api/studies").json()
    assert page["total"] == 2
    assert [one["study_uid"] for one in page["studies"]] == [analyzed.study, analyzed.before]
    newest = page["studies"][0]
    assert (newest["patient_id"], newest["modalities"], newest["analysis"]) == ("P1", ["CT"], "done")
    assert newest["findings"] >= 1
    assert newest["lung_rads"].startswith("4")
    assert 0 <= newest["highest_malignancy"] <= 1


@pytest.mark.parametrize(
    ("query", "count"),
    [({"text": "doe"}, 2), ({"text": "P2"}, 0), ({"date_from": "20200201"}, 1), ({"date_to": "20200201"}, 1), ({}, 2)],
)
def test_studies_are_found_by_text_and_date(client, query, count) -> None:
    assert client.post("/api/studies/query", json=query).json()["total"] == count


def test_a_study_has_its_grid_its_series_and_its_prior(client, analyzed) -> None:  # noqa: F811
    study = client.get(f"/api/studies/{analyzed.study}").json()
    assert [one["study_uid"] for one in study["priors"]] == [analyzed.before]
    assert study["analyzed_series_uid"] == analyzed.series
    assert [one["series_uid"] for one in study["all_series"]] == [analyzed.series]
    assert study["geometry"]["spacing_zyx_mm"] == [2.0, 1.0, 1.0]
    z, y, x = 10, 20, 30
    first = np.array(study["geometry"]["affine_lps"]) @ (0, 0, 0, 1)
    at = np.array(study["geometry"]["affine_lps"]) @ (z, y, x, 1)
    assert np.allclose(np.abs(at - first)[:3], (30, 20, 20))


def test_a_finding_says_what_it_is_and_how_it_grew(client, analyzed) -> None:  # noqa: F811
    found = nodule(client, analyzed.study)
    assert np.linalg.norm(np.subtract(found["center_xyz_mm"], CENTER)) < 1.5
    assert found["diameter_mm"] == pytest.approx(14, abs=1.5)
    assert (found["state"], found["version"], found["by_program"]) == ("proposed", 1, True)
    assert {trait["name"] for trait in found["traits"]} >= {"spiculation_present", "texture_solid"}
    assert all(word["speaks"] in ("for", "against", "neither") for word in found["words"])
    outline = found["outline"]
    assert sum(outline["runs"]) == np.prod(outline["shape_zyx"])
    assert sum(outline["runs"][1::2]) * 2.0 == pytest.approx(found["volume_mm3"], rel=0.1)
    (growth,) = found["growth"]
    assert (growth["prior_study_uid"], growth["days"]) == (analyzed.before, 91)
    assert growth["growth_mm"] == pytest.approx(4, abs=1)
    exact = 91 * np.log(2) / np.log(found["volume_mm3"] / growth["volume_before_mm3"])
    assert growth["volume_doubling_time_days"] == pytest.approx(exact, abs=0.1)
    assert 40 < growth["volume_doubling_time_days"] < 110  # 62 for balls of 10 and 14 mm
    (back,) = nodule(client, analyzed.before)["growth"]
    assert (back["days"], back["volume_doubling_time_days"]) == (-91, growth["volume_doubling_time_days"])


def test_a_reader_accepts_corrects_and_is_told_of_conflicts(client, analyzed) -> None:  # noqa: F811
    found = nodule(client, analyzed.study)
    address = f"/api/findings/{found['id']}"
    accepted = client.patch(address, json={"seen": 1, "state": "accepted", "note": "round"}).json()
    assert (accepted["state"], accepted["version"], accepted["note"]) == ("accepted", 2, "round")
    late = client.patch(address, json={"seen": 1, "state": "rejected"})
    assert late.status_code == 409
    assert "desk changed it meanwhile" in late.json()["error"]
    measured = client.patch(address, json={"seen": 2, "diameter_mm": 12.5}).json()
    assert (measured["diameter_mm"], measured["note"], measured["outline"]) == (12.5, "round", found["outline"])
    history = client.get(f"{address}/history").json()
    assert [one["what"] for one in history] == ["proposed", "corrected", "corrected"]
    assert [one["by"] for one in history] == ["spicula", "desk", "desk"]
    assert history[0]["diameter_mm"] == found["diameter_mm"]


def test_a_note_alone_is_no_verdict(client, analyzed) -> None:  # noqa: F811
    address = f"/api/findings/{nodule(client, analyzed.study)['id']}"
    noted = client.patch(address, json={"seen": 1, "note": "ask the surgeon"}).json()
    assert (noted["state"], noted["note"]) == ("proposed", "ask the surgeon")
    client.patch(address, json={"seen": 2, "state": "rejected"})
    again = client.patch(address, json={"seen": 3, "note": "a vessel"}).json()
    assert (again["state"], again["note"]) == ("rejected", "a vessel")


def test_a_corrected_place_is_measured_anew(client, analyzed) -> None:  # noqa: F811
    found = nodule(client, analyzed.study)
    near = [CENTER[0] + 3, CENTER[1], CENTER[2]]
    moved = client.patch(f"/api/findings/{found['id']}", json={"seen": 1, "center_xyz_mm": near}).json()
    assert moved["center_xyz_mm"] == near
    assert moved["diameter_mm"] == pytest.approx(found["diameter_mm"], abs=1.5)
    assert moved["by_program"]


def test_a_finding_can_be_added_where_there_is_something(client, analyzed) -> None:  # noqa: F811
    address = f"/api/studies/{analyzed.study}/findings"
    count = len(client.get(address).json())
    given = {"series_uid": analyzed.series, "center_xyz_mm": list(CENTER), "note": "seen by eye"}
    answer = client.post(address, json=given)
    assert answer.status_code == 201
    added = answer.json()
    assert (added["state"], added["number"], added["by_program"]) == ("accepted", count + 1, False)
    assert added["diameter_mm"] == pytest.approx(14, abs=1.5)
    assert added["malignancy"] is not None
    for center, status in (([0, 0, 900], 400), ([-70, -60, 10], 400), ([None, 0, 0], 422)):
        refused = client.post(address, json={**given, "center_xyz_mm": center})
        assert refused.status_code == status, refused.text
    other = client.post(address, json={**given, "series_uid": "1.2.3"})
    assert (other.status_code, "none of this UID" in other.json()["error"]) == (404, True)
    left = client.get(address).json()  # the program's proposal at this place is overtaken
    assert [one["state"] for one in left if np.linalg.norm(np.subtract(one["center_xyz_mm"], CENTER)) < 5] == [
        "accepted"
    ]
    assert len(left) == count


def test_rejected_findings_do_not_count(client, analyzed) -> None:  # noqa: F811
    for one in client.get(f"/api/studies/{analyzed.study}/findings").json():
        client.patch(f"/api/findings/{one['id']}", json={"seen": one["version"], "state": "rejected"})
    row = client.get("/api/studies").json()["studies"][0]
    assert (row["findings"], row["highest_malignancy"], row["lung_rads"]) == (0, None, None)
    assert nodule(client, analyzed.before)["growth"] == []


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/studies/1.2.3", 404),
        ("GET", "/api/studies/1.2.3/findings", 404),
        ("GET", "/api/findings/nobody/history", 404),
        ("GET", "/api/jobs/nobody", 404),
        ("POST", "/api/jobs/nobody/cancel", 404),
        ("POST", "/api/studies/1.2.3/analysis", 404),
        ("DELETE", "/api/studies/1.2.3", 404),
        ("GET", "/api/studies?limit=0", 422),
        ("GET", "/nothing/here", 404),
    ],
)
def test_what_is_not_there_is_said_in_one_sentence(client, method, path, status) -> None:
    answer = client.request(method, path)
    assert answer.status_code == status
    assert list(answer.json()) == ["error"]
    assert "\n" not in answer.json()["error"]


def test_an_unknown_field_is_refused(client, analyzed) -> None:  # noqa: F811
    found = nodule(client, analyzed.study)
    answer = client.patch(f"/api/findings/{found['id']}", json={"seen": 1, "stat": "accepted"})
    assert (answer.status_code, answer.json()["error"]) == (422, "stat: Extra inputs are not permitted")


@pytest.mark.parametrize("name", ["report.html", "report.json", "findings.csv", "sr.dcm", "seg.dcm"])
def test_exports_hold_what_readers_left(client, analyzed, name) -> None:  # noqa: F811
    answer = client.get(f"/api/studies/{analyzed.study}/exports/{name}")
    assert answer.status_code == 200
    assert len(answer.content) > 200
    assert answer.headers["content-disposition"].startswith("inline" if name == "report.html" else "attachment")
    assert answer.headers["cache-control"] == "no-store"


def test_an_export_of_another_name_is_none(client, analyzed) -> None:  # noqa: F811
    answer = client.get(f"/api/studies/{analyzed.study}/exports/..%2Fspicula.db")
    assert answer.status_code in (400, 404)
    assert "error" in answer.json()


def test_similar_cases_of_a_finding_a_place_and_a_box(place, analyzed, tiny: Tiny) -> None:  # noqa: F811
    services = Services(place, str(tiny.index), str(tiny.bundle))
    client = TestClient(make_app(place, services=services), base_url=BASE)
    about = client.get("/api/about").json()["index"]
    assert (about["findings"], about["patients"], "ward" in about["fields"]) == (24, 12, True)
    found = nodule(client, analyzed.study)
    by_finding = client.post("/api/search", json={"finding_id": found["id"]}).json()
    at = {"series_uid": analyzed.series}
    by_place = client.post("/api/search", json={**at, "point_xyz_mm": list(CENTER), "k": 5}).json()
    z, y, x = (round(value) for value in index_of(client, analyzed.study, CENTER))
    drawn = {"slice_index": z, "x0": x - 8, "y0": y - 8, "x1": x + 8, "y1": y + 8}
    by_box = client.post("/api/search", json={**at, "box": drawn, "k": 5}).json()
    assert [one["rank"] for one in by_finding["matches"]] == list(range(1, 11))
    assert [len(one["matches"]) for one in (by_place, by_box)] == [5, 5]
    assert by_place["matches"][0]["nodule_id"] == by_box["matches"][0]["nodule_id"]
    assert by_finding["matches"][0]["picture"].startswith("data:image/png;base64,")
    assert by_finding["picture"].startswith("data:image/png;base64,")
    assert by_finding["matches"][0]["outcome"] in ("malignant", "benign")
    assert by_finding["evidence"]["sentences"]
    assert {one["facts"]["ward"] for one in by_finding["matches"]} <= {f"ward {number}" for number in range(4)}
    assert all(one["facts"]["volume_mm3"] > 0 for one in by_finding["matches"])
    benign = client.post("/api/search", json={"finding_id": found["id"], "where": "malignant = 0", "k": 3}).json()
    assert {one["outcome"] for one in benign["matches"]} == {"benign"}
    assert "Only cases that meet the condition malignant = 0 were looked at." in benign["evidence"]["sentences"][0]
    assert benign["evidence"]["unlike_any"] == by_finding["evidence"]["unlike_any"]
    none = client.post("/api/search", json={"finding_id": found["id"], "where": "diameter_mm > 500"}).json()
    assert (none["matches"], "that meets the condition" in none["evidence"]["sentences"][0]) == ([], True)
    many = client.post("/api/search", json={"finding_id": found["id"], "k": 100}).json()
    assert len(many["matches"]) == 24
    wrong = client.post("/api/search", json={"finding_id": found["id"], "where": "sise > 3"})
    assert (wrong.status_code, "diameter_mm" in wrong.json()["error"]) == (400, True)
    thin = client.post("/api/search", json={**at, "box": {**drawn, "x1": x - 7}})
    assert thin.status_code == 400
    assert client.post("/api/search", json={}).status_code == 400


def test_the_index_of_a_server_is_opened_once(place, analyzed, tiny: Tiny, monkeypatch) -> None:  # noqa: F811
    from spicula.pipelines import opened_index, usual

    opened, told = [], []
    open_place, what_is_usual = opened_index.open_place, usual.usual
    monkeypatch.setattr(opened_index, "open_place", lambda where: opened.append(where) or open_place(where))
    monkeypatch.setattr(usual, "usual", lambda index: told.append(index) or what_is_usual(index))
    monkeypatch.setattr(usual, "_known", type(usual._known)())
    services = Services(place, str(tiny.index), str(tiny.bundle))
    client = TestClient(make_app(place, services=services), base_url=BASE)
    asked = {"series_uid": analyzed.series, "point_xyz_mm": list(CENTER)}
    answers = [client.post("/api/search", json=asked).json() for _ in range(3)]
    client.get("/api/about")
    assert answers[0] == answers[1] == answers[2]
    assert (len(opened), len(told)) == (1, 1)


def index_of(client: TestClient, study: str, point: tuple[float, float, float]) -> list[float]:
    affine = np.array(client.get(f"/api/studies/{study}").json()["geometry"]["affine_lps"])
    return (np.linalg.inv(affine) @ (*point, 1.0))[:3].tolist()


def test_readers_may_not_remove_and_admins_see_who_did_what(place, analyzed) -> None:  # noqa: F811
    place.users.add("ada", role="admin", password=PASSWORD)
    place.users.add("bob", role="reader", password=PASSWORD)
    client = TestClient(make_app(place, access=Access(users=True)), base_url=BASE)
    address = f"/api/studies/{analyzed.study}"
    assert client.get(address).status_code == 401
    bob = logged_in(client, "bob")
    assert client.get(address).status_code == 200
    assert client.delete(address, headers=bob).status_code == 403
    assert client.get("/api/audit").status_code == 403
    ada = logged_in(client, "ada")
    assert client.delete(address, headers=ada).status_code == 204
    assert client.get(address).status_code == 404
    entries = client.get("/api/audit").json()
    assert [(one["user"], one["action"]) for one in entries[:2]] == [("ada", "study.remove"), ("ada", "login")]
    assert ("bob", "study.open", analyzed.study) in [(one["user"], one["action"], one["object"]) for one in entries]
    assert "Doe" not in str(entries)


def test_a_series_is_of_its_study_alone(client, analyzed) -> None:  # noqa: F811
    given = {"series_uid": analyzed.series, "center_xyz_mm": list(CENTER)}
    assert client.post(f"/api/studies/{analyzed.study}/findings", json=given).status_code == 201
    other = client.post(f"/api/studies/{analyzed.before}/findings", json=given)  # its volume is at hand by now
    assert (other.status_code, "none of this UID" in other.json()["error"]) == (404, True)


def test_a_second_analysis_does_not_show_everything_twice(place, client, analyzed) -> None:  # noqa: F811
    before = client.get(f"/api/studies/{analyzed.study}/findings").json()
    client.post(f"/api/studies/{analyzed.study}/analysis")
    assert work(place, once=True) == 1
    after = client.get(f"/api/studies/{analyzed.study}/findings").json()
    assert len(after) == len(before)
    assert not {one["id"] for one in before} & {one["id"] for one in after}
    assert client.get("/api/studies").json()["studies"][0]["findings"] == len(before)


def test_categories_go_with_the_size_they_rest_on(client, analyzed) -> None:  # noqa: F811
    found = nodule(client, analyzed.study)
    assert found["lung_rads"] is not None
    changed = client.patch(f"/api/findings/{found['id']}", json={"seen": 1, "diameter_mm": 30.0}).json()
    assert (changed["lung_rads"], changed["fleischner"]) == (None, None)
