"""Folders, files and zips, and what is refused about them."""

from __future__ import annotations

import stat
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.uid import DeflatedExplicitVRLittleEndian

from spicula.core.errors import InputError
from spicula.dicom import archive
from spicula.dicom.archive import files_in, open_dataset
from spicula.dicom.reader import read_series
from spicula.dicom.series import find_series, select_series


def zipped(folder: Path, path: Path, *, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as container:
        for file in sorted(folder.rglob("*")):
            container.write(file, file.relative_to(folder.parent))
    return path


def test_folder_of_any_depth_with_other_files(ct: Any, tmp_path: Path) -> None:
    paths = ct.write(tmp_path / "a" / "b" / "c")
    (tmp_path / "a" / "notes.txt").write_text("nothing")
    (tmp_path / "a" / "empty").write_bytes(b"")
    (tmp_path / "a" / "short").write_bytes(b"\x08\x00")
    assert [member.path for member in files_in(tmp_path)][:6] == sorted(map(str, paths))
    assert find_series(tmp_path)[0].stack is not None


def test_zip_is_read_in_place(ct: Any, tmp_path: Path) -> None:
    ct.write(tmp_path / "scan" / "deep")
    path = zipped(tmp_path / "scan", tmp_path / "scan.zip")
    before = sorted(tmp_path.rglob("*"))
    from_zip = read_series(select_series(find_series(path)))
    from_folder = read_series(select_series(find_series(tmp_path / "scan")))
    np.testing.assert_array_equal(from_zip.array_zyx, from_folder.array_zyx)
    assert from_zip.geometry == from_folder.geometry
    assert sorted(tmp_path.rglob("*")) == before
    instance = from_zip.acquisition.instances[0]
    assert instance is not None
    assert instance.path.startswith(f"{path}!/scan/deep/IM")
    assert open_dataset(instance.path, pixels=False).SOPInstanceUID == instance.sop_instance_uid
    assert "PixelData" in open_dataset(instance.path, pixels=True)
    assert from_zip.acquisition.source == str(path)


def test_zip_under_another_name_and_stored(ct: Any, tmp_path: Path) -> None:
    ct.write(tmp_path / "scan")
    path = zipped(tmp_path / "scan", tmp_path / "scan.bin", method=zipfile.ZIP_STORED)
    assert not find_series(path)[0].refusal


def test_one_file_of_a_series_is_a_single_slice(ct: Any, tmp_path: Path) -> None:
    path = ct.write(tmp_path)[0]
    with pytest.raises(InputError, match=rf"{path.name}: a single slice"):
        select_series(find_series(path))


def test_data_set_without_preamble(ct: Any, tmp_path: Path) -> None:
    for path in ct.write(tmp_path):
        content = path.read_bytes()
        meta = int.from_bytes(content[140:144], "little")
        path.write_bytes(content[144 + meta :])
    assert read_series(select_series(find_series(tmp_path))).array_zyx.shape == (6, 9, 11)


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "C:/evil", "..\\evil"])
def test_names_that_lead_out_are_refused(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as container:
        container.writestr(name, b"x")
    with pytest.raises(InputError, match="leads out of the zip"):
        list(files_in(tmp_path / "bad.zip"))


def test_links_in_a_zip_are_refused(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("link")
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as container:
        container.writestr(info, "/etc/passwd")
    with pytest.raises(InputError, match=r"member 'link': got a link"):
        list(files_in(tmp_path / "bad.zip"))


def test_encrypted_zip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "secret.zip"
    with zipfile.ZipFile(path, "w") as container:
        container.writestr("file", b"x")
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(bytes(content))
    with pytest.raises(InputError, match="encrypted"):
        list(files_in(path))


def test_bomb_is_refused_by_what_it_declares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as container:
        container.writestr("zeros", bytes(2**20))
    assert len(list(files_in(path))) == 1
    monkeypatch.setattr(archive, "RATIO_FREE_BYTES", 2**19)
    archive._checked_zip.cache_clear()
    with pytest.raises(InputError, match=r"times the zip.*zip bomb"):
        list(files_in(path))


def test_bomb_that_declares_less_than_it_holds_ends_where_it_says(ct: Any, tmp_path: Path) -> None:
    path, content = tmp_path / "liar.zip", bytes(ct.write(tmp_path / "scan")[0].read_bytes())
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as container:
        container.writestr("slice", content + bytes(2**20))
    raw = bytearray(path.read_bytes())
    at = raw.index(b"PK\x01\x02") + 24
    raw[at : at + 4] = (1000).to_bytes(4, "little")
    path.write_bytes(bytes(raw))
    with pytest.raises(InputError):
        open_dataset(f"{path}!/slice", pixels=True)


def test_overlapping_members_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "overlap.zip"
    with zipfile.ZipFile(path, "w") as container:
        container.writestr("one", bytes(5000))
    raw = path.read_bytes()
    start, end = raw.index(b"PK\x01\x02"), raw.index(b"PK\x05\x06")
    record, tail = raw[start:end], bytearray(raw[end:])
    tail[8:12] = (2).to_bytes(2, "little") * 2
    tail[12:16] = (2 * len(record)).to_bytes(4, "little")
    path.write_bytes(raw[:start] + record * 2 + bytes(tail))
    with pytest.raises(InputError, match="overlap"):
        list(files_in(path))


def test_deflated_bomb_is_refused(ct: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = ct.slice(np.zeros((256, 256), np.int16), ct.Layout(), place=0, number=1)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    path = ct.save(dataset, tmp_path / "deflated")
    assert len(open_dataset(str(path), pixels=True).PixelData) == 2 * 256 * 256
    monkeypatch.setattr(archive, "MAX_INFLATED_BYTES", 2**16)
    with pytest.raises(InputError, match="inflates beyond"):
        open_dataset(str(path), pixels=True)


def test_links_out_of_the_folder_are_refused(ct: Any, tmp_path: Path) -> None:
    outside = ct.write(tmp_path / "outside")[0]
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "link").symlink_to(outside)
    with pytest.raises(InputError, match="a link out of the folder"):
        find_series(inside)
    (inside / "link").unlink()
    (inside / "folder").symlink_to(outside.parent, target_is_directory=True)
    with pytest.raises(InputError, match="a link out of the folder"):
        find_series(inside)


def test_links_within_the_folder_and_dead_ones_are_no_harm(ct: Any, tmp_path: Path) -> None:
    paths = ct.write(tmp_path / "scan")
    (tmp_path / "again").symlink_to(paths[0])
    (tmp_path / "dead").symlink_to(tmp_path / "nothing")
    (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
    assert not select_series(find_series(tmp_path)).refusal


@pytest.mark.parametrize("kind", ["absent", "empty folder", "empty zip", "text", "broken zip"])
def test_nothing_to_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "input"
    if kind == "empty folder":
        path.mkdir()
    elif kind == "empty zip":
        zipfile.ZipFile(path, "w").close()
    elif kind == "text":
        path.write_text("no image " * 40)
    elif kind == "broken zip":
        path.write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(InputError, match="input"):
        find_series(path)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@given(data=st.data())
def test_broken_zips_bring_no_other_error(ct: Any, tmp_path: Path, data: st.DataObject) -> None:
    if not (tmp_path / "scan").exists():
        ct.write(tmp_path / "scan", ct.stored((3, 4, 4)))
        zipped(tmp_path / "scan", tmp_path / "whole.zip")
    content = bytearray((tmp_path / "whole.zip").read_bytes())
    if data.draw(st.booleans(), label="cut"):
        content = content[: data.draw(st.integers(0, len(content) - 1), label="length")]
    for _ in range(data.draw(st.integers(0, 3), label="flips") if content else 0):
        bit = data.draw(st.integers(0, 8 * len(content) - 1), label="bit")
        content[bit // 8] ^= 1 << bit % 8
    path = tmp_path / "broken.zip"
    path.write_bytes(bytes(content))
    archive._checked_zip.cache_clear()
    try:
        read_series(select_series(find_series(path)))
    except InputError:
        return
