"""Outlines of an analysis as a DICOM segmentation, one segment a finding, on the source images' own grid.

References:
    DICOM PS3.3 A.51 (Segmentation IOD) and C.8.20.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray

from spicula import __version__
from spicula.core.analysis import Analysis
from spicula.core.errors import GeometryError, InputError, SpiculaWarning
from spicula.core.files import written_aside
from spicula.core.finding import Finding
from spicula.core.volume import Mask
from spicula.dicom.source import (
    SourceImages,
    SourcePlane,
    outlined,
    place_mask,
    plain_names,
    tracking_id,
    tracking_uid,
)

OFF_SOURCE_PIXELS = 0.35
"""How far a voxel may lie from a pixel of its own source image: slice positions jitter, the volume's grid does not."""

SAME_ORIENTATION = 1e-3
"""Direction cosines that differ less are the same; scanners round them differently from slice to slice."""


def write_seg(path: Path, analysis: Analysis) -> bool:
    """Write the outlines as a binary DICOM segmentation.

    Frames lie exactly on source frames and refer to them; frames without an outline are left out, and so are the
    parts of an outline on slices that were interpolated (with a warning). Segments carry the tracking UIDs of the
    measurement report.

    Args:
        path: The file to write; it appears whole or not at all.
        analysis: Findings on a volume read from DICOM.

    Returns:
        True if the file was written; False where there is no outline to write.

    Raises:
        InputError: The volume does not come from DICOM, or a source file cannot be read any more.
        GeometryError: An outline or the volume does not lie on the grid of the source images.
    """
    import highdicom as hd

    source = SourceImages(analysis.volume)
    findings = list(outlined(analysis))
    pixels = {finding.id: _pixels(finding, mask, source=source) for finding, mask in findings}
    kept = [finding for finding, _ in findings if pixels[finding.id]]
    if not kept:
        return False
    planes = {index: plane for some in pixels.values() for index, (plane, _) in some.items()}
    order = sorted(planes)
    header = planes[order[0]].header
    array = np.zeros((len(order), int(header.Rows), int(header.Columns), len(kept)), dtype=np.uint8)
    for segment, finding in enumerate(kept):
        for index, (_, places) in pixels[finding.id].items():
            array[order.index(index), places[:, 0], places[:, 1], segment] = 1
    images, positions = _source_images([planes[index] for index in order], frame_uid=source.frame_of_reference_uid)
    with plain_names():
        segmentation = hd.seg.Segmentation(
            source_images=images,
            pixel_array=array,
            segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=[
                _description(finding, number=number, analysis=analysis) for number, finding in enumerate(kept, start=1)
            ],
            series_instance_uid=hd.UID(),
            series_number=9902,
            sop_instance_uid=hd.UID(),
            instance_number=1,
            manufacturer="Spicula",
            manufacturer_model_name="Spicula",
            software_versions=__version__,
            device_serial_number=__version__,
            plane_positions=positions,
            omit_empty_frames=True,
            content_label="SPICULA",
            content_description="Lung nodule outlines; research only, not a medical device",
            series_description="Spicula outlines (research)",
        )
    with written_aside(path) as aside:
        segmentation.save_as(aside, enforce_file_format=True)
    return True


def _pixels(finding: Finding, mask: Mask, *, source: SourceImages) -> dict[int, tuple[SourcePlane, NDArray[np.intp]]]:
    """By slice index, the plane and the pixels ``[n, 2]`` (row, column) of the source frame that the outline holds."""
    name = f"finding {finding.id}"
    start = place_mask(mask, source.volume, name=name)
    found = {}
    skipped = []
    for z in np.flatnonzero(mask.array_zyx.any(axis=(1, 2))):
        index = start[0] + int(z)
        plane = source.plane(index)
        if plane is None:
            skipped.append(index)
            continue
        voxels = np.argwhere(mask.array_zyx[z])
        world = source.volume.geometry.index_to_world(np.insert(voxels + start[1:], 0, index, axis=1))
        found[index] = (plane, _whole(plane, plane.pixels(world), name=name))
    if skipped:
        message = f"{name}: its outline on interpolated slices {skipped} has no source image and is not in the SEG"
        warnings.warn(message, SpiculaWarning, stacklevel=3)
    return found


def _whole(plane: SourcePlane, pixels: NDArray[np.float64], *, name: str) -> NDArray[np.intp]:
    """Round pixel places that lie on the source grid, and refuse others."""
    rounded = np.rint(pixels).astype(np.intp)
    off = float(np.abs(pixels - rounded).max())
    size = (int(plane.header.Rows), int(plane.header.Columns))
    if off > OFF_SOURCE_PIXELS or rounded.min() < 0 or (rounded >= size).any():
        raise GeometryError(
            f"outline of {name} on source instance {plane.instance.sop_instance_uid}",
            got=f"pixels up to {off:.2f} off its grid of {size[0]} x {size[1]}",
            expected="the source image's own grid",
            hint="the volume was resampled; analyze it on its own grid",
        )
    return rounded


def _source_images(planes: Sequence[SourcePlane], *, frame_uid: str) -> tuple[list[pydicom.Dataset], list[Any] | None]:
    """Source datasets as highdicom wants them, and plane positions where the source is one multi-frame object."""
    import highdicom as hd

    first = copy.deepcopy(planes[0].header)
    if not frame_uid:
        raise InputError(
            f"source instance {first.SOPInstanceUID}: no Frame of Reference UID",
            hint="a SEG cannot be placed without it",
        )
    first.FrameOfReferenceUID = frame_uid
    if planes[0].instance.frame is None:
        images = [copy.copy(plane.header) for plane in planes]
        orientation = np.array(first.ImageOrientationPatient, dtype=np.float64)
        for image in images:
            if np.abs(np.array(image.ImageOrientationPatient, dtype=np.float64) - orientation).max() > SAME_ORIENTATION:
                raise GeometryError(
                    f"source instance {image.SOPInstanceUID}: ImageOrientationPatient",
                    got=list(image.ImageOrientationPatient),
                    expected=orientation.tolist(),
                )
            image.ImageOrientationPatient = first.ImageOrientationPatient
            image.FrameOfReferenceUID = frame_uid
        return images, None
    shared = first.SharedFunctionalGroupsSequence[0]
    frame = first.PerFrameFunctionalGroupsSequence[(planes[0].instance.frame or 1) - 1]
    for sequence in ("PlaneOrientationSequence", "PixelMeasuresSequence"):
        if sequence not in shared:
            shared[sequence] = frame[sequence]
    positions = [
        hd.PlanePositionSequence(hd.CoordinateSystemNames.PATIENT, image_position=plane.origin.tolist())
        for plane in planes
    ]
    return [first], positions


def _description(finding: Finding, *, number: int, analysis: Analysis) -> Any:
    import highdicom as hd
    from pydicom.sr.codedict import codes

    algorithm = hd.AlgorithmIdentificationSequence(
        name="Spicula",
        family=codes.cid7162.ArtificialIntelligence,
        version=__version__,
        parameters={"fingerprints": " ".join(analysis.fingerprints)} if analysis.fingerprints else None,
    )
    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=tracking_id(finding)[:64],
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=codes.SCT.Nodule,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm,
        tracking_uid=tracking_uid(analysis, finding),
        tracking_id=tracking_id(finding),
        anatomic_regions=[codes.SCT.Lung],
        display_color=hd.color.CIELabColor.from_rgb(255, 176, 0),
    )
