"""The tables beside LIDC-IDRI, in the layouts in which they are handed out."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from spicula.core.errors import InputError
from spicula.datasets.lidc_tables import find_diagnoses, find_metadata, load_diagnoses, load_series_patients


def test_both_tables_of_the_series_are_read(tmp_path: Path) -> None:
    assert find_metadata(tmp_path) is None
    (tmp_path / "metadata.csv").write_text(
        "Series UID,Collection,3rd Party Analysis,Study UID,Subject ID,Modality,File Location\n"
        "1.2.3,LIDC-IDRI,NO,1.2,LIDC-IDRI-0001,CT,./LIDC-IDRI/LIDC-IDRI-0001/1\n"
        "1.2.4,LIDC-IDRI,NO,1.2,LIDC-IDRI-0001,DX,./LIDC-IDRI/LIDC-IDRI-0001/2\n"
    )
    path = find_metadata(tmp_path)
    assert path is not None
    assert load_series_patients(path) == {"1.2.3": "LIDC-IDRI-0001", "1.2.4": "LIDC-IDRI-0001"}
    assert load_series_patients(path, modality="CT") == {"1.2.3": "LIDC-IDRI-0001"}
    (tmp_path / "LIDC-IDRI_MetaData.csv").write_text("Patient Id,Modality,Series UID\nLIDC-IDRI-0002,CT,1.9\n")
    path = find_metadata(tmp_path)
    assert path is not None
    assert load_series_patients(path) == {"1.9": "LIDC-IDRI-0002"}


def test_a_row_without_its_patient_is_named(tmp_path: Path) -> None:
    path = tmp_path / "metadata.csv"
    path.write_text("Series UID,Subject ID\n1.2.3,LIDC-IDRI-0001\n1.2.4,\n")
    with pytest.raises(InputError, match=r"metadata\.csv, line 3: Patient Id is empty"):
        load_series_patients(path)
    with pytest.raises(InputError, match="column Modality missing"):
        load_series_patients(path, modality="CT")


@pytest.mark.shared
def test_the_real_tables(shared: Path) -> None:
    metadata, diagnoses = find_metadata(shared / "lidc_xml"), find_diagnoses(shared / "lidc_xml")
    assert metadata is not None
    assert diagnoses is not None
    patients = load_series_patients(metadata, modality="CT")
    assert (len(patients), len(set(patients.values()))) == (1018, 1010)
    found = load_diagnoses(diagnoses)
    assert Counter(one.patient for one in found.values()) == {0: 27, 1: 36, 2: 43, 3: 51}
    assert Counter(one.method for one in found.values()) == {0: 28, 1: 28, 2: 46, 3: 39, 4: 16}
    assert found.keys() <= set(patients.values())
    assert found["LIDC-IDRI-0068"].nodules == (3,)
    assert found["LIDC-IDRI-0068"].primary_site == "Head & Neck Cancer"
