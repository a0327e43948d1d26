"""Analyses built in code: a flipped volume with a bright ball, with and without the optional facts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from spicula.core.analysis import Analysis, Assessment
from spicula.core.finding import Finding, Size
from spicula.core.geometry import Geometry
from spicula.core.prediction import TRAITS, Prediction
from spicula.core.slice_reading import SliceReading
from spicula.core.volume import Acquisition, Instance, Mask, Volume
from spicula.core.words import Answer, Words

CENTER = (12.0, -30.0, -105.0)
RADIUS_MM = 8.0


def ball(geometry: Geometry) -> np.ndarray:
    grid = np.stack(np.meshgrid(*map(np.arange, geometry.shape_zyx), indexing="ij"), axis=-1)
    return np.linalg.norm(geometry.index_to_world(grid) - CENTER, axis=-1) <= RADIUS_MM


@pytest.fixture
def make_analysis() -> Callable[..., Analysis]:
    """``make(full=False)`` leaves out everything optional; other facts replace those of the acquisition."""

    def make(*, full: bool = True, **facts: Any) -> Analysis:
        shape = (30, 60, 70)
        direction = np.diag([-1.0, 1.0, -1.0])  # x and z run backward
        geometry = Geometry.from_axes(
            shape, (3.0, 1.0, 1.25), origin_xyz_mm=(60.0, -60.0, -60.0), direction_xyz=direction
        )
        inside = ball(geometry)
        volume_array = np.where(inside, 100, -850).astype(np.int16)
        if not full:
            finding = Finding("a", CENTER)
            return Analysis(Volume(volume_array, geometry), (finding,))
        instances = [Instance(f"{i}.dcm", "1.2.840.10008.5.1.4.1.1.2", f"1.2.3.{i}") for i in range(shape[0])]
        given: dict[str, Any] = {
            "source": "scan", "format": "DICOM", "modality": "CT", "patient_id": "P-1", "study_uid": "1.2",
            "study_date": "20200102", "series_description": "Chest", "manufacturer": "Maker", "kernel": "B30f",
            "slice_thickness_mm": 3.0, "instances": (*instances[:5], None, *instances[6:]),
        }  # fmt: skip
        volume = Volume(volume_array, geometry, "1.2.3", Acquisition(**given | facts))
        x, y, z = CENTER
        size = Size(
            16.0, 12.0, ((x - 8, y, z), (x + 8, y, z)), ((x, y - 6, z), (x, y + 6, z)), 2144.66, 100.0, 15.0, 1800.0
        )
        places = np.argwhere(inside)
        start, stop = places.min(axis=0), places.max(axis=0) + 1
        box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
        mask = Mask(inside[box], geometry.crop(start.tolist(), stop.tolist()))
        findings = (
            Finding("1", CENTER, 14.0, 0.9, {"distance_to_pleura_mm": 4.5}, mask=mask, size=size),
            Finding("2", (-10.0, -20.0, -80.0), None, 0.2),
        )
        made_by = "nodule-risk@0123456789abcdef"
        predictions = [Prediction("1", "malignancy", 0.9, (0.8, 0.96), made_by)]
        predictions += [Prediction("1", name, 0.82, (0.7, 0.9), made_by) for name in TRAITS]
        predictions[2] = Prediction("1", TRAITS[1], 0.04, None, made_by)
        assessments = {
            "1": (
                Assessment("Lung-RADS 2022", "4A", "3-month LDCT", ("solid", "mean diameter 14.0 mm"), ("prior scan",)),
                Assessment("Fleischner 2017", "solid, single, > 8 mm", "Consider CT", ("14 mm",), ("risk factors",)),
            )
        }
        return Analysis(volume, findings, tuple(predictions), assessments, (made_by,), ("Slices are 3 mm apart.",))

    return make


@pytest.fixture
def worded(make_analysis: Callable[..., Analysis]) -> Callable[..., Analysis]:
    """``worded(**changes)`` is the full analysis whose first finding has answers; changes are of the asked answers."""

    def make(**changes: Any) -> Analysis:
        analysis = make_analysis()
        standard = (
            Answer("", "margins=Spiculated", "Present", ("Absent", "Present"), (0.9, 0.1), (0.4, 0.1), (0.05, 0.2),
                   True, None, "spiculation_present", "Present", 0.82, True),
            Answer("", "consistency", "Solid", ("Pure ground glass", "Part-solid", "Solid"), (0.05, 0.25, 0.7),
                   (0.0, 0.2, 0.4), (0.6, 0.8), True, None, "texture_solid", "Solid", 0.82),
            Answer("", "cyst_like_spaces", "Present", ("Absent", "Present"), (0.97, 0.03), (0.4, 0.1),
                   (0.01, 0.05), True),
        )  # fmt: skip
        asked = (
            Answer("part-solid", "consistency", "Part-solid", ("Pure ground glass", "Part-solid", "Solid"),
                   (0.05, 0.25, 0.7), (0.0, 0.2, 0.4), (0.15, 0.3), True, None, "texture_solid", "Solid", 0.82),
            Answer("spiculatd", None, "Present", ("Present", "Absent"), (0.6, 0.4), (-0.3, -0.4), (0.5, 0.7), False,
                   "spiculated"),
        )  # fmt: skip
        asked = tuple(replace(answer, **changes) for answer in asked)
        attention = {"axial": 0.4, **{f"plane {i}": 0.075 for i in range(8)}}
        return replace(
            analysis, words=(Words("1", "nodule-semantic@0123456789abcdef", (*standard, *asked), attention),)
        )

    return make


@pytest.fixture
def looked(make_analysis: Callable[..., Analysis]) -> Callable[..., Analysis]:
    """``looked(**changes)`` is the full analysis whose first finding has a reading without labels, changed so."""

    def make(**changes: Any) -> Analysis:
        analysis = make_analysis()
        grid = Geometry.from_axes((1, 70, 70), (1.0, 0.7, 0.7), origin_xyz_mm=np.array(CENTER) - (24.15, 24.15, 0.0))
        hu = np.where(ball(grid), 100, -850).astype(np.float32)[0]
        attention = np.full((5, 5), 0.02, np.float32)
        attention[2, 2] = 0.4
        reading = SliceReading(
            "1", "nodule-ssm@0123456789abcdef", np.zeros(3, np.float32), 5, attention, hu, grid, 0.4512, 0.0821, 0.61
        )
        return replace(analysis, slice_readings=(replace(reading, **changes),))

    return make
