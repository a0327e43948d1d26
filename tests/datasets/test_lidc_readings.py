"""The readers' ratings: parsing, grouping, and the rule behind the label."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from spicula.core.errors import InputError
from spicula.datasets import lidc_nodules
from spicula.datasets.lidc_readings import load_ratings, load_readings

NODULE = """<unblindedReadNodule><noduleID>1</noduleID><characteristics><subtlety>5</subtlety>
<internalStructure>1</internalStructure><calcification>6</calcification><sphericity>3</sphericity><margin>4</margin>
<lobulation>2</lobulation><spiculation>1</spiculation><texture>5</texture><malignancy>{malignancy}</malignancy>
</characteristics>{rois}</unblindedReadNodule>"""
ROI = """<roi><imageZposition>{z}</imageZposition><inclusion>{inside}</inclusion>
<edgeMap><xCoord>{x}</xCoord><yCoord>20</yCoord></edgeMap><edgeMap><xCoord>{x}</xCoord><yCoord>24</yCoord></edgeMap></roi>"""


def archive(folder: Path, sessions: list[str], *, uid: str = "1.2.3") -> Path:
    body = "".join(f"<readingSession>{session}</readingSession>" for session in sessions)
    header = f"<ResponseHeader><SeriesInstanceUid>{uid}</SeriesInstanceUid></ResponseHeader>"
    content = f'<LidcReadMessage xmlns="http://www.nih.gov">{header}{body}</LidcReadMessage>'.encode()
    path = folder / "readings.tar.xz"
    with tarfile.open(path, "w:xz") as tar:
        for name in ("a/1.xml", "a/again.xml"):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def test_a_reading_in_two_files_counts_once(tmp_path: Path) -> None:
    rois = ROI.format(z=-10.0, inside="TRUE", x=10) + ROI.format(z=-5.0, inside="TRUE", x=10)
    hole = ROI.format(z=90.0, inside="FALSE", x=400)
    path = archive(tmp_path, [NODULE.format(malignancy=4, rois=rois + hole), NODULE.format(malignancy=2, rois=rois)])
    (first, second) = load_readings(path, {"1.2.3"})["1.2.3"]
    assert first.ratings == (5, 1, 6, 3, 4, 2, 1, 5, 4)
    assert second.ratings[-1] == 2
    assert (first.reader, second.reader) == (0, 1)
    assert first.middle_yx == (22.0, 10.0)
    assert first.z_mm == (-10.0, -5.0)


def test_other_series_are_left_out(tmp_path: Path) -> None:
    path = archive(tmp_path, [NODULE.format(malignancy=4, rois=ROI.format(z=0, inside="TRUE", x=1))])
    assert load_readings(path, {"1.2.4"}) == {}


def test_a_missing_archive_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing\.tar\.xz"):
        load_readings(tmp_path / "nothing.tar.xz", {"1"})


@pytest.mark.shared
@pytest.mark.slow
def test_the_label_says_that_two_readers_rated_4_or_5(shared: Path) -> None:
    cases = lidc_nodules.load_cases(shared / "lidc_nodules", with_test_patient=True)[:150]
    archive = shared / "lidc_xml" / "tcia-lidc-xml.tar.xz"
    ratings = load_ratings(shared / "lidc_nodules", archive, case_ids={case.case_id for case in cases})
    assert ratings.keys() == {case.case_id for case in cases}
    complete = [c for c in cases if len(ratings[c.case_id]) == c.findings[0].truth["readers"]]
    assert len(complete) >= 145
    malignancy = lidc_nodules.TRAITS.index("malignancy")
    for case in complete:
        votes = ratings[case.case_id][:, malignancy]
        assert (np.count_nonzero(votes >= 4) >= 2) == (case.findings[0].truth["label"] == 1)
