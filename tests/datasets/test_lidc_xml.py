"""Reading files: what is kept, what counts, what is refused."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from spicula.core.errors import InputError
from spicula.datasets.lidc_files import reading_files
from spicula.datasets.lidc_xml import TRAITS, load_readings, parse_reading


@pytest.fixture
def content(lidc) -> bytes:
    ring = lidc.square(10, 20, 3)
    first = [
        lidc.nodule(
            "N1",
            [
                lidc.roi(-10.5, ring, sop="1.9.1"),
                lidc.roi(-13.0, ring, sop="1.9.2"),
                lidc.roi(-13.0, lidc.square(11, 21, 1), sop="1.9.2", inside=False),
                lidc.roi(-15.5, [(11, 21)], sop="1.9.3"),
            ],
        ),
        lidc.nodule("small", [lidc.roi(-20.0, [(50, 60)], sop="1.9.4")], ratings=None),
        lidc.non_nodule("other", -30.25, 100, 200, sop="1.9.5"),
    ]
    second = [
        lidc.nodule("drawn", [lidc.roi(-10.5, ring), lidc.roi(-13.0, ring)], ratings=None),
        lidc.nodule("zeros", [lidc.roi(-20.0, [(50, 60)])], ratings=(0,) * 9),
        lidc.nodule("empty", [lidc.roi(-20.0, [(50, 60)])], ratings=()),
    ]
    return lidc.file([first, second, [], []])


def test_every_mark_is_kept_with_its_outlines_ratings_and_slices(content, lidc):
    reading = parse_reading(content, source="069.xml")
    assert (reading.series_uid, reading.study_uid, reading.modality, reading.readers) == ("1.2.3", "1.2", "CT", 4)
    assert [(mark.reader, mark.name, mark.kind) for mark in reading.marks] == [
        (0, "N1", "nodule"),
        (0, "small", "small nodule"),
        (0, "other", "non-nodule"),
        (1, "drawn", "unrated"),
        (1, "zeros", "small nodule"),
        (1, "empty", "small nodule"),
    ]
    nodule, small, other = reading.marks[:3]
    assert nodule.rated == dict(zip(TRAITS, lidc.ratings, strict=True))
    assert [(o.z_mm, o.sop_uid, o.inside) for o in nodule.outlines] == [
        (-10.5, "1.9.1", True),
        (-13.0, "1.9.2", True),
        (-13.0, "1.9.2", False),
        (-15.5, "1.9.3", True),
    ]
    assert nodule.outlines[0].points_xy.tolist() == [list(point) for point in lidc.square(10, 20, 3)]
    assert small.outlines[0].points_xy.tolist() == [[50, 60]]
    assert (other.outlines[0].z_mm, other.outlines[0].sop_uid) == (-30.25, "1.9.5")
    assert other.outlines[0].points_xy.tolist() == [[100, 200]]


def test_what_counts_is_rated_and_traced(content):
    reading = parse_reading(content, source="x")
    assert [mark.name for mark in reading.annotations] == ["N1"]
    assert len(reading.annotations[0].traced) == 3
    assert reading.notes == (
        "reader 1 has 1 outlines of a single point in 'N1'",
        "reader 2 outlined 'drawn' but did not rate it",
        "reader 2 rated 'zeros' 0; it counts as a small nodule",
    )


def test_a_mark_written_twice_by_one_reader_counts_once(lidc):
    nodule = lidc.nodule("N", [lidc.roi(1.0, lidc.square(5, 5, 2))])
    reading = parse_reading(lidc.file([[nodule, nodule], [nodule], []]), source="x")
    assert [mark.reader for mark in reading.annotations] == [0, 1]
    assert reading.notes == (
        "3 reading sessions instead of 4",
        "reader 1 has 'N' twice, word for word; it counts once",
    )


def test_the_layout_of_a_file_does_not_matter(content):
    reading = parse_reading(content, source="x")
    tight = b"".join(line.strip() for line in content.splitlines())
    wide = content.replace(b">", b">\r\n  ").replace(b"</", b"\r\n  </")
    commented = content.replace(b"<edgeMap>", b"<!-- a point --><edgeMap>").replace(b"<xCoord>", b"<xCoord >")
    foreign = b"\xef\xbb\xbf" + content.replace(b"UTF-8", b"iso-8859-1", 1)
    for other in (tight, wide, commented, foreign):
        assert parse_reading(other, source="x") == reading


def test_points_agree_with_those_of_a_plain_parser(content):
    root = ElementTree.fromstring(content)
    names = "{http://www.nih.gov}"
    plain = [
        [[int(edge[0].text), int(edge[1].text)] for edge in roi.iter(f"{names}edgeMap")]
        for roi in root.iter(f"{names}roi")
    ]
    marks = [mark for mark in parse_reading(content, source="x").marks if mark.kind != "non-nodule"]
    assert [outline.points_xy.tolist() for mark in marks for outline in mark.outlines] == plain


def test_a_radiograph_is_told_from_a_ct(lidc):
    reading = parse_reading(lidc.radiograph(), source="x")
    assert (reading.modality, reading.series_uid, reading.marks) == ("CXR", "1.2.9", ())


@pytest.mark.parametrize("ending", [".tar.xz", ".tar.gz", ".zip", ""])
def test_an_archive_is_read_like_a_folder(content, lidc, tmp_path, ending):
    files = {"tcia-lidc-xml/157/158.xml": content, "tcia-lidc-xml/186/1.XML": lidc.file([[], [], [], []], series="4")}
    files |= {"tcia-lidc-xml/187/2.xml": lidc.radiograph(), "tcia-lidc-xml/readme.txt": b"no XML"}
    root = tmp_path / f"tcia-lidc-xml{ending}"
    if ending == ".zip":
        with zipfile.ZipFile(root, "w") as archive:
            for name, data in files.items():
                archive.writestr(name, data)
    elif ending:
        with tarfile.open(root, f"w:{ending[-2:]}") as tar:
            for name, data in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
            link = tarfile.TarInfo("tcia-lidc-xml/link.xml")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(link)
    else:
        for name, data in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(data)
    assert [data for _, data in reading_files(tmp_path)] == [files[name] for name in list(files)[:3]]
    readings = list(load_readings(root))
    assert [(reading.series_uid, len(reading.marks)) for reading in readings] == [("1.2.3", 6), ("4", 0)]
    assert readings[0].source.endswith("158.xml")
    assert [reading.series_uid for reading in load_readings(root, series_uids={"4"})] == ["4"]


def test_of_a_series_that_is_in_two_files_the_first_counts(lidc, tmp_path):
    nodule = lidc.nodule("N", [lidc.roi(1.0, lidc.square(5, 5, 2))])
    (tmp_path / "2.xml").write_bytes(lidc.file([[nodule], [], [], []]))
    (tmp_path / "10.xml").write_bytes(lidc.file([[], [], [], []]))
    (reading,) = load_readings(tmp_path)
    assert reading.source.endswith("10.xml")


def test_a_malformed_file_is_named_with_its_line(content, tmp_path):
    lines = content.splitlines(keepends=True)
    number = next(n for n, line in enumerate(lines) if line.startswith(b"</edgeMap>")) + 40
    lines[number] = b"</edgeMop>\n"
    (tmp_path / "broken.xml").write_bytes(b"".join(lines))
    with pytest.raises(InputError, match=rf"broken\.xml, line {number + 1}: not well-formed"):
        list(load_readings(tmp_path))
    with pytest.raises(InputError, match=r"short, line \d+: not well-formed"):
        parse_reading(content[:-200], source="short")
    with pytest.raises(InputError, match=r"none, line 1: not well-formed"):
        parse_reading(b"", source="none")


def test_entities_are_refused_before_anything_is_parsed(content):
    bomb = content.replace(
        b"<LidcReadMessage", b'<!DOCTYPE x [<!ENTITY a "aaaaaaaa"><!ENTITY b "&a;&a;&a;">]>\n<LidcReadMessage', 1
    )
    with pytest.raises(InputError, match=r"bomb, line 2: a document type"):
        parse_reading(bomb, source="bomb")
    with pytest.raises(InputError, match=r"encoding: got cp037"):
        parse_reading(content.replace(b"UTF-8", b"cp037", 1), source="x")
    for encoding in ("utf-16", "utf-16-le", "utf-32"):
        with pytest.raises(InputError, match="encoding"):
            parse_reading(bomb.decode().encode(encoding), source="x")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"<SeriesInstanceUid>1.2.3</SeriesInstanceUid>", b"", "no SeriesInstanceUid"),
        (b"LidcReadMessage", b"Other", "an XML file of <Other>"),
        (b"<imageZposition>-10.5<", b"<imageZposition>high<", "reader 1, nodule 'N1': an outline holds something"),
        (b"<imageZposition>-10.5<", b"<imageZposition>nan<", "reader 1, nodule 'N1': an outline"),
        (b"<xCoord>9</xCoord>", b"<xCoord>9.5</xCoord>", "something that is no number"),
        (b"<margin>4</margin>", b"<margin>soft</margin>", "nodule 'N1': ratings"),
        (b"<margin>4</margin>", b"<margin>9</margin>", "expected whole numbers from 1 to 6"),
    ],
)
def test_what_is_no_reading_is_refused(content, old, new, message):
    assert old in content
    with pytest.raises(InputError, match=message):
        parse_reading(content.replace(old, new), source="x")


def test_a_missing_rating_makes_no_annotation(content):
    reading = parse_reading(content.replace(b"<margin>4</margin>", b""), source="x")
    assert reading.annotations == ()
    assert reading.marks[0].rated["margin"] == 0


def test_nothing_to_read_is_one_clear_error(tmp_path):
    with pytest.raises(InputError, match=r"absent: no such file or folder"):
        list(reading_files(tmp_path / "absent"))
    with pytest.raises(InputError, match=r"no \.xml file in it"):
        list(reading_files(tmp_path))
    for name, data in (("lidc-xml.tar.xz", b"no archive"), ("lidc-xml.zip", b"PK\x03\x04 no archive")):
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(InputError, match="cannot be read"):
            list(reading_files(path))


def test_an_archive_cut_short_is_one_clear_error(content, tmp_path):
    path = tmp_path / "lidc-xml.tar.xz"
    with tarfile.open(path, "w:xz") as tar:
        info = tarfile.TarInfo("1.xml")
        noise = np.random.default_rng(0).integers(0, 255, 100_000, dtype=np.uint8).tobytes()
        info.size = len(noise)
        tar.addfile(info, io.BytesIO(noise))
    path.write_bytes(path.read_bytes()[:50_000])
    with pytest.raises(InputError, match=r"tar\.xz!/1\.xml cannot be read: .*nothing behind it"):
        list(reading_files(Path(path)))


def filled(path, contents):
    """An archive of reading files, one after the other."""
    with zipfile.ZipFile(path, "w") if path.suffix == ".zip" else tarfile.open(path, "w") as archive:
        for name, data in contents.items():
            if path.suffix == ".zip":
                archive.writestr(name, data)
            else:
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return path


def readings_and_faults(path):
    faults = []
    names = [source.rpartition("/")[2] for source, _ in reading_files(path, broken=faults.append)]
    return names, [str(fault) for fault in faults]


def test_a_damaged_member_of_a_zip_is_named_and_the_others_are_read(content, tmp_path):
    contents = {f"{number}.xml": content.replace(b"1.2.3", b"1.2.%d" % number) for number in range(4)}
    path = filled(tmp_path / "LIDC-XML-only.zip", contents)
    data = bytearray(path.read_bytes())
    data[data.index(b"<ResponseHeader>") + 5] ^= 1  # of the first member
    path.write_bytes(data)
    names, faults = readings_and_faults(path)
    assert names == ["1.xml", "2.xml", "3.xml"]
    assert len(faults) == 1
    assert "LIDC-XML-only.zip!/0.xml cannot be read: Bad CRC-32" in faults[0]
    with pytest.raises(InputError, match=r"!/0\.xml cannot be read"):
        list(load_readings(tmp_path))


@pytest.mark.parametrize("place", ["data", "boundary", "header", "checksum"])
def test_a_tar_that_ends_early_is_told_wherever_it_ends(content, tmp_path, place):
    contents = {f"{number}.xml": content for number in range(3)}
    path = filled(tmp_path / "lidc-xml.tar", contents)
    assert readings_and_faults(path) == ([*contents], [])
    with tarfile.open(path) as tar:
        last = tar.getmembers()[-1]
    data = bytearray(path.read_bytes())
    if place == "checksum":
        data[last.offset] ^= 1
    else:
        del data[{"data": last.offset_data + 40, "boundary": last.offset, "header": last.offset + 100}[place] :]
    path.write_bytes(data)
    names, (fault,) = readings_and_faults(path)
    assert names == ["0.xml", "1.xml"]
    assert ("!/2.xml cannot be read" if place == "data" else "lidc-xml.tar, behind 1.xml cannot be read") in fault
    assert "nothing behind it can be read" in fault
    with pytest.raises(InputError, match="nothing behind it"):
        list(load_readings(tmp_path))


def test_a_link_that_leads_nowhere_and_a_broken_repeat_are_no_silent_loss(content, tmp_path):
    (tmp_path / "1.xml").write_bytes(content)
    (tmp_path / "2.xml").symlink_to(tmp_path / "absent.xml")
    names, (fault,) = readings_and_faults(tmp_path)
    assert names == ["1.xml"]
    assert fault.endswith("2.xml cannot be read: a link that leads nowhere")
    with pytest.raises(InputError, match="leads nowhere"):
        list(load_readings(tmp_path))
    (tmp_path / "2.xml").unlink()
    (tmp_path / "2.xml").write_bytes(content[:-50])
    with pytest.raises(InputError, match=r"2\.xml, line"):
        list(load_readings(tmp_path))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"<margin>4<", b"<margin>9<"), (b"<margin>4<", b"<margin>soft<"), (b"<xCoord>9<", b"<xCoord>9.5<"),
        (b"<imageZposition>-10.5<", b"<imageZposition>nan<"), (b"<imageZposition>-10.5<", b"<imageZposition><"),
    ],
)  # fmt: skip
def test_a_bad_value_is_named_with_its_line(content, old, new):
    line = content[: content.index(old)].count(b"\n") + 1
    with pytest.raises(InputError, match=rf"^x, line {line}: reader 1"):
        parse_reading(content.replace(old, new, 1), source="x")


def test_a_damaged_file_is_read_or_refused_but_nothing_else(content):
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(400):
        damaged = bytearray(content)
        for place in rng.integers(0, len(content), rng.integers(1, 4)):
            damaged[place] = rng.integers(0, 256)
        if rng.random() < 0.2:
            del damaged[int(rng.integers(0, len(damaged))) :]
        try:
            parse_reading(bytes(damaged), source="x")
        except InputError:
            refused += 1
    assert refused > 100
