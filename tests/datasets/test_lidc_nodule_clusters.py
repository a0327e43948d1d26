"""Which outlines are of one nodule: by hand, and against a plain way to group as pylidc does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from spicula.datasets.lidc_nodule_clusters import cluster, nodules_of, nodules_of_all, regular_slices
from spicula.datasets.lidc_sqlite import ScanFacts
from spicula.datasets.lidc_xml import Mark, Outline, Reading

SLICES = np.arange(0.0, 60.0, 3.0)


def mark(lidc, reader, *, x=50, y=50, z=(6.0, 9.0), size=6, ratings=(3,) * 9, name="") -> Mark:
    outlines = tuple(Outline(height, "", True, np.array(lidc.square(x, y, size), np.int32)) for height in z)
    return Mark(reader, name or f"{reader}-{x}", "nodule", ratings, outlines)


def reading(*marks) -> Reading:
    return Reading("x.xml", "1.2.3", "1.2", "CT", 4, marks)


def names(groups) -> list[list[str]]:
    return [[one.name for one in group] for group in groups]


def plain_groups(marks, slices, reach):
    """Single linkage written out: all distances, labels spread until nothing changes."""
    clouds = []
    for one in marks:
        planes = [np.abs(slices - outline.z_mm).argmin() for outline in one.outlines]
        clouds.append(
            np.concatenate(
                [np.c_[o.points_xy, np.full(len(o.points_xy), k)] for o, k in zip(one.outlines, planes, strict=True)]
            )
        )
    near = np.array([[cdist(a, b).min() for b in clouds] for a in clouds])
    while True:
        labels = list(range(len(marks)))
        for _ in marks:
            labels = [min(labels[j] for j in range(len(marks)) if near[i, j] <= reach) for i in range(len(marks))]
        if max(labels.count(label) for label in labels) <= 4 or reach * 0.9 < 0.1:
            return labels
        reach *= 0.9


def test_outlines_within_reach_are_one_nodule(lidc):
    marks = [mark(lidc, 0), mark(lidc, 1, x=52), mark(lidc, 2, x=54, z=(12.0,)), mark(lidc, 3, x=90)]
    assert names(cluster(marks, SLICES, reach=3.0)) == [["0-50", "1-52", "2-54"], ["3-90"]]
    assert cluster([], SLICES, reach=3.0) == []
    assert names(cluster(marks[:1], SLICES, reach=3.0)) == [["0-50"]]


def test_the_reach_shrinks_until_no_group_has_more_than_four(lidc):
    near = [mark(lidc, reader, x=50 + reader % 2) for reader in range(4)]
    beside = [mark(lidc, reader, x=60 + reader % 2, name=f"{reader}-beside") for reader in range(3)]
    groups = cluster(near + beside, SLICES, reach=3.0)
    assert sorted(map(len, groups)) == [3, 4]
    assert {one.name for one in min(groups, key=len)} == {"0-beside", "1-beside", "2-beside"}


@pytest.mark.parametrize("seed", range(15))
def test_groups_are_those_of_a_plain_way(lidc, seed):
    rng = np.random.default_rng(seed)
    marks = [
        mark(
            lidc, -1, x=int(rng.integers(20, 60)), y=int(rng.integers(20, 40)), size=int(rng.integers(1, 7)),
            z=tuple(3.0 * rng.integers(2, 6) + 3.0 * np.arange(rng.integers(1, 4))), name=str(number),
        )
        for number in range(int(rng.integers(2, 14)))
    ]  # fmt: skip
    groups = cluster(marks, SLICES, reach=2.5, one_mark_a_reader=False)
    labels = plain_groups(marks, SLICES, 2.5)
    expected = [
        [m.name for m, label in zip(marks, labels, strict=True) if label == own] for own in dict.fromkeys(labels)
    ]
    assert names(groups) == expected
    shuffled = [marks[index] for index in rng.permutation(len(marks))]
    again = cluster(shuffled, SLICES, reach=2.5, one_mark_a_reader=False)
    assert {frozenset(one.name for one in g) for g in again} == {frozenset(group) for group in expected}


def test_a_reader_has_one_outline_of_a_nodule(lidc):
    large = [mark(lidc, reader, size=12, name=f"large {reader}") for reader in (0, 1)]
    parts = [mark(lidc, 2, size=8, name="part"), mark(lidc, 2, x=59, y=59, size=2, name="rest")]
    assert names(cluster(large + parts, SLICES, reach=3.0, one_mark_a_reader=False)) == [
        ["large 0", "large 1", "part", "rest"]
    ]
    assert names(cluster(large + parts, SLICES, reach=3.0)) == [["large 0", "large 1", "part"], ["rest"]]


def test_groups_too_large_to_part_by_reach_are_parted_by_overlap(lidc):
    same = [mark(lidc, reader, name=f"{reader}") for reader in range(4)]
    again = [mark(lidc, reader, x=51, name=f"{reader} again") for reader in range(2)]
    groups = cluster(same + again, SLICES, reach=3.0)
    assert sorted(map(sorted, names(groups))) == [["0", "1", "2", "3"], ["0 again", "1 again"]]
    unknown = [replace(one, reader=-1) for one in same + again]
    assert sorted(map(len, cluster(unknown, SLICES, reach=3.0))) == [2, 4]


def test_a_nodule_has_medians_places_and_sizes(lidc):
    marks = [
        mark(lidc, 0, z=(30.0,), ratings=(1,) * 9),
        mark(lidc, 1, z=(30.0,), ratings=(2,) * 9),
        mark(lidc, 2, x=52, z=(30.0, 33.0, 36.0), ratings=(5,) * 8 + (4,)),
        mark(lidc, 0, x=100, z=(3.0,)),
    ]
    facts = ScanFacts("LIDC-IDRI-0009", "1.2.3", "1.2", 0.5, 3.0, tuple(SLICES.tolist()))
    first, second = nodules_of(reading(*marks), facts=facts)
    assert (first.number, second.number) == (1, 2)  # by height
    assert len(first.marks) == 1
    assert second.patient_id == "LIDC-IDRI-0009"
    assert second.medians["subtlety"] == 2.0
    assert second.medians["malignancy"] == 2.0
    assert second.middle_xyz == pytest.approx((52.5 + 2 / 3, 52.5, 31.0), abs=0.05)
    diagonal = 0.5 * np.hypot(7, 7)
    assert second.longest_diameter_mm == pytest.approx(diagonal)
    assert second.diameter_mm == pytest.approx(diagonal)
    assert second.volume_mm3 == pytest.approx(49 * 0.25 * (3 + 3 + 9) / 3)


def test_without_facts_there_are_places_but_no_sizes(lidc):
    marks = (mark(lidc, 0), mark(lidc, 1, x=52), mark(lidc, 2, x=90, z=(30.0,)))
    plain = list(nodules_of_all([reading(*marks)], patients={"1.2.3": "LIDC-IDRI-0009"}))
    assert [len(nodule.marks) for nodule in plain] == [2, 1]
    assert {nodule.patient_id for nodule in plain} == {"LIDC-IDRI-0009"}
    for nodule in plain:
        assert nodule.diameter_mm is nodule.longest_diameter_mm is nodule.volume_mm3 is nodule.axes_mm is None
    assert nodules_of(reading()) == []


def test_slices_are_guessed_from_the_outlines(lidc):
    marks = (mark(lidc, 0, z=(10.0, 12.5, 15.0)), mark(lidc, 1, z=(12.5, 15.0)), mark(lidc, 2, z=(40.0,)))
    assert regular_slices(reading(*marks)).tolist() == np.arange(10.0, 41.0, 2.5).tolist()
    assert regular_slices(reading(mark(lidc, 0, z=(7.0,)))).tolist() == [7.0]
