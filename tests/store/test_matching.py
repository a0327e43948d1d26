"""DICOM's matching: wildcards, ranges, lists, and what cannot be asked."""

from __future__ import annotations

import pytest

from spicula.core.errors import InputError
from spicula.store.matching import instances_matching, series_matching, studies_matching
from spicula.store.studies import NewInstance, Studies

from .test_studies import file

NAMES = ("Doe^Jane", "Doe^John", "Roe_100%^Ann", "Müller^Eva")


@pytest.fixture
def filled(engine, tmp_path):
    studies = Studies(engine, tmp_path / "store")
    for n, name in enumerate(NAMES):
        for series, modality in ((1, "CT"), (2, "SR" if n % 2 else "CT")):
            for number in range(2):
                studies.add(
                    file(tmp_path, bytes([n, series, number])),
                    NewInstance(
                        {"study_uid": f"1.{n}", "patient_id": f"P{n}", "patient_name": name, "origin": "upload",
                         "study_date": f"2020010{n + 1}"},
                        {"series_uid": f"1.{n}.{series}", "modality": modality, "number": series},
                        {"sop_instance_uid": f"1.{n}.{series}.{number}", "sop_class_uid": "1.2",
                         "transfer_syntax_uid": "1.2.1", "number": number},
                    ),
                )  # fmt: skip
    return engine


def found(engine, **filters: str) -> list[str]:
    return sorted(row["study_uid"] for row in studies_matching(engine, filters, limit=50))


def test_studies_are_matched_as_dicom_does(filled) -> None:
    assert found(filled) == found(filled, PatientName="*") == ["1.0", "1.1", "1.2", "1.3"]
    assert found(filled, PatientName="doe^*") == ["1.0", "1.1"]
    assert found(filled, PatientName="DOE^J?NE") == ["1.0"]
    assert found(filled, PatientName="roe_100%^*") == ["1.2"]
    assert found(filled, PatientName="MÜLLER^*") == ["1.3"]
    assert found(filled, PatientName="%") == found(filled, PatientName="Doe_Jane") == []
    assert found(filled, StudyDate="20200102-") == ["1.1", "1.2", "1.3"]
    assert found(filled, StudyDate="-20200102") == ["1.0", "1.1"]
    assert found(filled, StudyDate="20200102-20200103") == ["1.1", "1.2"]
    assert found(filled, StudyDate="20200104") == ["1.3"]
    assert found(filled, StudyInstanceUID="1.0\\1.3") == found(filled, StudyInstanceUID="1.0,1.3") == ["1.0", "1.3"]
    assert found(filled, ModalitiesInStudy="SR") == ["1.1", "1.3"]
    assert found(filled, PatientID="P1'; DROP TABLE studies; --") == []


def test_counts_and_pages(filled) -> None:
    rows = studies_matching(filled, {}, limit=3)
    assert len(rows) == 3
    assert [row["study_uid"] for row in rows] == ["1.3", "1.2", "1.1"]
    assert (rows[0]["modalities"], rows[0]["series"], rows[0]["instances"]) == (["CT", "SR"], 2, 4)
    assert (rows[1]["modalities"], rows[1]["series"]) == (["CT"], 2)
    assert [row["study_uid"] for row in studies_matching(filled, {}, limit=3, offset=3)] == ["1.0"]


def test_series_and_instances(filled) -> None:
    assert [row["series_uid"] for row in series_matching(filled, {"StudyInstanceUID": "1.1"}, limit=9)] == [
        "1.1.1",
        "1.1.2",
    ]
    assert [row["instances"] for row in series_matching(filled, {"Modality": "SR"}, limit=9)] == [2, 2]
    of_series = {"StudyInstanceUID": "1.1", "SeriesInstanceUID": "1.1.2"}
    assert [row["number"] for row in instances_matching(filled, of_series, limit=9)] == [0, 1]
    assert instances_matching(filled, {**of_series, "InstanceNumber": "1"}, limit=9)[0]["study_uid"] == "1.1"
    assert instances_matching(filled, {"StudyInstanceUID": "1.0", "SeriesInstanceUID": "1.1.2"}, limit=9) == ()


@pytest.mark.parametrize(
    ("filters", "said"),
    [
        ({"PatientWeight": "70"}, "expected one of StudyInstanceUID.*ModalitiesInStudy"),
        ({"StudyDate": "yesterday"}, "YYYYMMDD"),
        ({"StudyDate": "-"}, "YYYYMMDD"),
    ],
)
def test_what_cannot_be_asked_is_refused(filled, filters, said) -> None:
    with pytest.raises(InputError, match=said):
        studies_matching(filled, filters, limit=5)
    with pytest.raises(InputError, match="a whole number"):
        series_matching(filled, {"SeriesNumber": "one"}, limit=5)
