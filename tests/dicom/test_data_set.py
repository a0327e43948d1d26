"""Files of one data set are told from files of another, whatever they say of themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pydicom
from pydicom.uid import ImplicitVRLittleEndian

from spicula.dicom.data_set import same_data_set


def test_file_meta_information_does_not_matter_and_all_else_does(ct: Any, tmp_path: Path) -> None:
    one = ct.write(tmp_path / "ct", ct.stored((1, 8, 8)))[0]
    dataset = pydicom.dcmread(one)
    dataset.file_meta.ImplementationVersionName = "ANOTHER LONG ONE"
    dataset.save_as(tmp_path / "renamed.dcm")
    assert one.read_bytes() != (tmp_path / "renamed.dcm").read_bytes()
    assert same_data_set(one, tmp_path / "renamed.dcm")
    content = one.read_bytes()
    for other in (content[:-1] + bytes([content[-1] ^ 1]), content + b"x", content[:-1]):
        (tmp_path / "other.dcm").write_bytes(other)
        assert not same_data_set(one, tmp_path / "other.dcm")
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    dataset.save_as(tmp_path / "implicit.dcm")
    assert not same_data_set(one, tmp_path / "implicit.dcm")
    (tmp_path / "none.dcm").write_bytes(b"no DICOM")
    assert not same_data_set(one, tmp_path / "none.dcm")
