"""Frames that are read again and again: always those of the file that is there now."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import ExplicitVRBigEndian, JPEGLSLossless
from sqlalchemy import event

from spicula.core.errors import InputError
from spicula.core.geometry import Geometry
from spicula.core.volume import Volume
from spicula.dicom.served import frame_places, frames
from spicula.dicom.writer import write_series
from spicula.pipelines.ingest import ingest
from spicula.pipelines.served_frames import ServedFrames
from spicula.pipelines.workplace import open_workplace


@pytest.fixture
def place(tmp_path):
    with open_workplace(tmp_path / "store") as opened:
        yield opened


def files_of(folder: Path, seed: int, slices: int = 3) -> list[Path]:
    noise = np.random.default_rng(seed).integers(-1000, 400, (slices, 24, 30)).astype(np.int16)
    volume = Volume(noise, Geometry.from_axes(noise.shape, (2.0, 0.7, 0.7)))
    return write_series(folder, volume, patient_id="P1", description="noise")


def keys_of(place) -> list[tuple[str, str, str]]:
    (study,) = [row["study_uid"] for row in place.studies.list().rows]
    (series,) = [row["series_uid"] for row in place.studies.series(study)]
    return [(study, series, row["sop_instance_uid"]) for row in place.studies.instances(series)]


def test_the_second_reading_is_the_first_and_asks_no_database(place, tmp_path) -> None:
    written = {pydicom.dcmread(one).SOPInstanceUID: one for one in files_of(tmp_path / "in", 0)}
    ingest(tmp_path / "in", place.studies, origin="test")
    served, keys, asked = ServedFrames(place), keys_of(place), []
    first = [served.read(*key, [1]) for key in keys]
    event.listen(place.engine, "before_cursor_execute", lambda *args: asked.append(args[2]))
    assert [served.read(*key, [1]) for key in keys] == first
    assert asked == []
    assert first == [frames(written[key[2]], [1]) for key in keys]
    with pytest.raises(InputError, match="1 to 1"):
        served.read(*keys[0], [2])


def test_a_study_that_is_gone_is_gone_and_another_in_its_place_is_read(place, tmp_path) -> None:
    files = files_of(tmp_path / "in", 0)
    ingest(tmp_path / "in", place.studies, origin="test")
    served, keys = ServedFrames(place), keys_of(place)
    before = served.read(*keys[0], [1])
    place.studies.remove(keys[0][0])
    with pytest.raises(InputError, match="none of these UIDs"):
        served.read(*keys[0], [1])
    for one in files:  # the same UIDs, other pixels, behind a longer header
        dataset = pydicom.dcmread(one)
        dataset.PixelData = (dataset.pixel_array + 7).astype("<i2").tobytes()
        dataset.ImageComments = "made again"
        dataset.save_as(one)
    ingest(tmp_path / "in", place.studies, origin="test")
    (after,), _, _ = served.read(*keys[0], [1])
    was = np.frombuffer(before[0][0], "<i2").astype(np.int16)
    assert np.array_equal(np.frombuffer(after, "<i2"), was + 7)


def test_the_ones_nobody_asks_for_are_forgotten(place, tmp_path) -> None:
    files_of(tmp_path / "in", 0)
    ingest(tmp_path / "in", place.studies, origin="test")
    served, keys = ServedFrames(place, most=2), keys_of(place)
    for key in (*keys[:2], keys[0], keys[2]):
        served.read(*key, [1])
    assert set(served._kept) == {keys[0], keys[2]}


def test_places_are_those_of_the_frames(tmp_path) -> None:
    (one,) = files_of(tmp_path / "in", 0, slices=1)
    dataset = pydicom.dcmread(one)
    pixels = np.random.default_rng(1).integers(0, 4000, (3, 24, 30)).astype("<u2")
    dataset.NumberOfFrames, dataset.PixelData = 3, pixels.tobytes()
    dataset.save_as(tmp_path / "many.dcm")
    places = frame_places(tmp_path / "many.dcm")
    assert places is not None
    assert places.count == 3
    assert places.read(tmp_path / "many.dcm", [3, 1]) == frames(tmp_path / "many.dcm", [3, 1])[0]
    with pytest.raises(InputError, match="1 to 3"):
        places.read(tmp_path / "many.dcm", [4])


def test_what_is_handed_out_otherwise_than_it_is_stored_has_no_place(place, tmp_path) -> None:
    (one,) = files_of(tmp_path / "in", 0, slices=1)
    plain = pydicom.dcmread(one)
    plain.PixelData = plain.PixelData[:100]
    plain.save_as(tmp_path / "short.dcm")
    del plain.PixelData
    plain.save_as(tmp_path / "none.dcm")
    compressed = pydicom.dcmread(one)
    compressed.compress(JPEGLSLossless)
    compressed.save_as(tmp_path / "compressed.dcm")
    turned = pydicom.dcmread(one)
    turned.PixelData = turned.pixel_array.astype(">i2").tobytes()
    turned.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    big = pydicom.Dataset(turned)
    big.file_meta = turned.file_meta
    pydicom.dcmwrite(
        tmp_path / "turned.dcm", big, little_endian=False, implicit_vr=False, enforce_file_format=True
    )  # fmt: skip
    assert pydicom.dcmread(tmp_path / "turned.dcm").file_meta.TransferSyntaxUID == ExplicitVRBigEndian
    for name in ("short", "none", "compressed", "turned"):
        assert frame_places(tmp_path / f"{name}.dcm") is None
    (tmp_path / "text.dcm").write_text("no DICOM " * 40)
    with pytest.raises(InputError):
        frame_places(tmp_path / "text.dcm")
    ingest(tmp_path / "turned.dcm", place.studies, origin="test")
    (key,) = keys_of(place)
    (found,), _, syntax = ServedFrames(place).read(*key, [1])
    assert np.array_equal(np.frombuffer(found, "<i2"), pydicom.dcmread(one).pixel_array.ravel())
    assert syntax == "1.2.840.10008.1.2.1"


def test_that_a_file_has_no_places_is_found_out_once(place, tmp_path, monkeypatch) -> None:
    (one,) = files_of(tmp_path / "in", 0, slices=1)
    compressed = pydicom.dcmread(one)
    compressed.compress(JPEGLSLossless)
    compressed.save_as(one)
    ingest(one, place.studies, origin="test")
    (key,), served, looked = keys_of(place), ServedFrames(place), []
    monkeypatch.setattr(
        "spicula.pipelines.served_frames.frame_places", lambda path: looked.append(path) or frame_places(path)
    )
    first = served.read(*key, [1])
    assert served.read(*key, [1]) == first == frames(one, [1])
    assert len(looked) == 1
