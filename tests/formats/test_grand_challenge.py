"""Points of grand-challenge.org: round trip, the published example, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spicula.core.errors import InputError
from spicula.core.finding import Finding
from spicula.formats.grand_challenge import read_json, read_points, write_points

ANY = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
numbers = st.floats(-1e4, 1e4)
points = st.lists(
    st.tuples(st.text(min_size=1).filter(str.strip), st.tuples(numbers, numbers, numbers), st.floats(0, 1)),
    max_size=5,
    unique_by=lambda point: point[0],
)


def put(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@ANY
@given(points)
def test_what_is_written_comes_back(tmp_path, made):
    path = tmp_path / "a.json"
    findings = [Finding(name, place) for name, place, _ in made]
    write_points(path, findings, [score for *_, score in made])
    found = read_points(path, probabilities=True)
    assert [(f.id, f.center_xyz_mm, f.score) for f in found] == made
    write_points(path, findings)
    assert [(f.id, f.center_xyz_mm, f.score) for f in read_points(path)] == [(*point[:2], None) for point in made]


def test_the_layout_of_the_platform(tmp_path):
    write_points(tmp_path / "a.json", [Finding("123456_1_19990102", (-64.78, 64.5, -52.46))], [0.25])
    assert json.loads((tmp_path / "a.json").read_text()) == {
        "name": "Points of interest",
        "type": "Multiple points",
        "points": [{"name": "123456_1_19990102", "point": [-64.78, 64.5, -52.46], "probability": 0.25}],
        "version": {"major": 1, "minor": 0},
    }


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", r"a\.json, line 1, column 2 is not JSON"),
        ("[]", "an object in braces"),
        ({"type": "Point", "points": []}, "'Multiple points'"),
        ({"type": "Multiple points"}, "a list"),
        ({"type": "Multiple points", "points": [1]}, "point 1"),
        ({"type": "Multiple points", "points": [{"point": [1, 2, 3]}]}, "point 1: name"),
        ({"type": "Multiple points", "points": [{"name": "a", "point": [1, 2]}]}, r"point 1 \(a\): point"),
        ('{"type": "Multiple points", "points": [{"name": "a", "point": [1, 2, NaN]}]}', "three finite numbers"),
        ({"type": "Multiple points", "points": [{"name": "a", "point": [1, 2, True]}]}, "three finite numbers"),
        ({"type": "Multiple points", "points": [{"name": "a", "point": [1, 2, 10**400]}]}, "three finite numbers"),
        ('{"type": ' + "9" * 5000 + "}", "is not JSON"),
        ('{"type": ' + "[" * 200000, "is not JSON"),
        ({"type": "Multiple points", "points": [{"name": "a", "point": [1, 2, 3]}] * 2}, "'a' twice"),
    ],
)
def test_what_is_no_list_of_points_is_refused(tmp_path, content, words):
    with pytest.raises(InputError, match=words):
        read_points(put(tmp_path / "a.json", content))


@pytest.mark.parametrize("score", [None, 1.5, -0.1, "0.5", True])
def test_a_probability_out_of_range_is_refused(tmp_path, score):
    point = {"name": "a", "point": [1, 2, 3], "probability": score}
    path = put(tmp_path / "a.json", {"type": "Multiple points", "points": [point]})
    with pytest.raises(InputError, match="a number from 0 to 1"):
        read_points(path, probabilities=True)
    assert read_points(path)[0].score is None


@pytest.mark.parametrize(
    ("findings", "scores", "words"),
    [
        ([Finding("a", (1, 2, 3))], [float("nan")], "a number from 0 to 1"),
        ([Finding("a", (1, 2, 3))], [3.2], "logits"),
        ([Finding("a", (1, 2, float("inf")))], [0.5], "three finite numbers"),
        ([Finding("", (1, 2, 3))], [0.5], "name"),
        ([Finding("a", (1, 2, 3)), Finding("a", (4, 5, 6))], [0.5, 0.5], "'a' twice"),
        ([Finding("a", (1, 2, 3))], [], "one a finding"),
    ],
)
def test_what_cannot_be_read_back_is_not_written(tmp_path, findings, scores, words):
    with pytest.raises(InputError, match=words):
        write_points(tmp_path / "a.json", findings, scores)
    assert not list(tmp_path.iterdir())


@ANY
@given(st.binary(max_size=60))
def test_noise_is_an_input_error(tmp_path, noise):
    (tmp_path / "a.json").write_bytes(noise)
    with pytest.raises(InputError):
        read_points(tmp_path / "a.json")


def test_an_absent_file(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        read_json(tmp_path / "absent.json")
