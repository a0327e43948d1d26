"""Measurement report (TID 1500) of an analysis, for a PACS.

Each finding is one measurement group: TID 1411 (volumetric ROI) where it has an outline, TID 1410 (planar ROI) where
only its place is known. Both kinds of readers find something to show: those that draw on source images get SCOORD
polylines (the key slice first), those that work in the patient's frame get SCOORD3D (center and key outline).

Codes are standard where there is one. The private scheme ``99SPICULA`` holds only what has none: the traits'
probabilities and the Lung-RADS 2022 categories as values.

References:
    DICOM PS3.16, TID 1500, 1410, 1411, 300, 310; PS3.3 C.18.6 and C.18.9 (SCOORD and SCOORD3D).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spicula import __version__
from spicula.core.analysis import Analysis, Assessment
from spicula.core.files import written_aside
from spicula.core.finding import Finding
from spicula.core.prediction import TRAITS, Prediction
from spicula.dicom.source import (
    SourceImages,
    SourcePlane,
    derived_uid,
    finite,
    place_mask,
    plain_names,
    tracking_id,
    tracking_uid,
)
from spicula.transforms.outline import enclosed_area, outlines

SCHEME = "99SPICULA"
"""Private coding scheme designator."""

MALIGNANCY_CODE = ("P-MALIGNANT", "Probability that radiologists would rate the nodule malignant")
"""Not DCM 111047 "Probability of cancer": the model learned readers' opinion, not pathology."""

TRAIT_CODES = {
    "subtlety_obvious": ("P-OBVIOUS", "Probability that the nodule is obvious (LIDC subtlety 4 or more)"),
    "calcification_present": ("P-CALCIFIED", "Probability of calcification (LIDC calcification under 6)"),
    "sphericity_round": ("P-ROUND", "Probability of a round shape (LIDC sphericity 4 or more)"),
    "margin_sharp": ("P-SHARP", "Probability of a sharp margin (LIDC margin 4 or more)"),
    "lobulation_present": ("P-LOBULATED", "Probability of lobulation (LIDC lobulation 3 or more)"),
    "spiculation_present": ("P-SPICULATED", "Probability of spiculation (LIDC spiculation 3 or more)"),
    "texture_solid": ("P-SOLID", "Probability of solid texture (LIDC texture 5)"),
}
"""Private codes (value, meaning) of the traits' probabilities."""

SOLID_CODES = {
    "diameter": ("D-SOLID", "Mean diameter of the solid part"),
    "volume": ("V-SOLID", "Volume of the solid part"),
}
"""Private codes of the solid part's size."""

DISCLAIMER = (
    "Made by Spicula, research software. Not a medical device, not for diagnosis, treatment or triage. "
    "Probabilities rest on the opinion of readers, not on proven diagnoses. Not verified by a physician."
)

SPECK_PIXELS = 2.0
"""Smaller parts of an outline (square pixels) are drawn only where there is no larger one on the slice."""


def write_sr(path: Path, analysis: Analysis, *, created: datetime | None = None) -> None:
    """Write the DICOM structured report of an analysis.

    The document is Comprehensive 3D SR, PARTIAL, PRELIMINARY and UNVERIFIED; all source instances are listed as its
    evidence. An analysis without findings gives a report that says so.

    Args:
        path: The file to write; it appears whole or not at all.
        analysis: What was found, on a volume read from DICOM.
        created: Time of the content; now if None.

    Raises:
        InputError: The volume does not come from DICOM, or a source file cannot be read any more.
        GeometryError: An outline does not lie on the volume's grid.
    """
    import highdicom as hd
    from highdicom.coding_schemes import CodingSchemeIdentificationItem

    source = SourceImages(analysis.volume)
    groups = [_group(finding, analysis=analysis, source=source) for finding in analysis.findings]
    report = _report(groups, analysis=analysis)
    created = created or datetime.now()
    with plain_names():
        document = hd.sr.Comprehensive3DSR(
            evidence=source.evidence(),
            content=report,
            series_instance_uid=hd.UID(),
            series_number=9901,
            sop_instance_uid=hd.UID(),
            instance_number=1,
            manufacturer="Spicula",
            is_complete=False,
            is_final=False,
            is_verified=False,
            performed_procedure_codes=[],
            series_description="Spicula findings (research)",
            manufacturer_model_name="Spicula",
            software_versions=__version__,
            device_serial_number=__version__,
            coding_schemes=[
                CodingSchemeIdentificationItem(
                    designator=SCHEME, name="Spicula private codes", responsible_organization="The Spicula authors"
                )
            ],
        )
    document.ContentDate = document.InstanceCreationDate = document.SeriesDate = created.strftime("%Y%m%d")
    document.ContentTime = document.InstanceCreationTime = document.SeriesTime = created.strftime("%H%M%S")
    with written_aside(path) as aside:
        document.save_as(aside, enforce_file_format=True)


def _code(value: str, meaning: str) -> Any:
    import highdicom as hd

    return hd.sr.CodedConcept(value=value, scheme_designator=SCHEME, meaning=meaning[:64])


def _report(groups: Sequence[Any], *, analysis: Analysis) -> Any:
    """The whole content tree."""
    import highdicom as hd
    from pydicom.sr.codedict import codes

    device = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=derived_uid("device", "spicula", __version__),
        name="Spicula",
        manufacturer_name="The Spicula authors",
        model_name="Spicula",
        serial_number=__version__,
    )
    context = hd.sr.ObservationContext(
        observer_device_context=hd.sr.ObserverContext(
            observer_type=codes.DCM.Device, observer_identifying_attributes=device
        )
    )
    # highdicom insists on a measurement group; without findings one that only says so is needed
    report = hd.sr.MeasurementReport(
        observation_context=context,
        procedure_reported=hd.sr.CodedConcept("169069000", "SCT", "CT of chest"),
        imaging_measurements=list(groups) or [_no_finding(analysis)],
        title=codes.DCM.ImagingMeasurementReport,
    )
    root = report[0].ContentSequence
    summary = (
        codes.DCM.AllAlgorithmsSucceededWithFindings if groups else codes.DCM.AllAlgorithmsSucceededWithoutFindings
    )
    evaluations = hd.sr.ContainerContentItem(
        name=hd.sr.CodedConcept("C0034375", "UMLS", "Qualitative Evaluations"),
        relationship_type=hd.sr.RelationshipTypeValues.CONTAINS,
    )
    evaluations.ContentSequence = hd.sr.ContentSequence(
        [
            hd.sr.CodeContentItem(
                name=codes.DCM.CADProcessingAndFindingsSummary,
                value=summary,
                relationship_type=hd.sr.RelationshipTypeValues.CONTAINS,
            ),
            *(_comment(text) for text in (DISCLAIMER, *analysis.warnings)),
        ]
    )
    root.append(evaluations)
    return report


def _comment(text: str) -> Any:
    import highdicom as hd
    from pydicom.sr.codedict import codes

    return hd.sr.TextContentItem(
        name=codes.DCM.Comment, value=text, relationship_type=hd.sr.RelationshipTypeValues.CONTAINS
    )


def _algorithm(analysis: Analysis) -> Any:
    import highdicom as hd

    return hd.sr.AlgorithmIdentification(
        name="Spicula", version=__version__, parameters=list(analysis.fingerprints) or None
    )


def _no_finding(analysis: Analysis) -> Any:
    """A measurement group (TID 1501) that says that the lungs were searched and nothing was found."""
    import highdicom as hd
    from pydicom.sr.codedict import codes

    return hd.sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(
            uid=derived_uid(analysis.volume.series_uid, *analysis.fingerprints, "none"), identifier="No nodule found"
        ),
        algorithm_id=_algorithm(analysis),
        finding_sites=[hd.sr.FindingSite(codes.SCT.Lung)],
        qualitative_evaluations=[
            hd.sr.QualitativeEvaluation(
                codes.DCM.CADProcessingAndFindingsSummary, codes.DCM.AllAlgorithmsSucceededWithoutFindings
            )
        ],
    )


def _group(finding: Finding, *, analysis: Analysis, source: SourceImages) -> Any:
    """The measurement group of one finding."""
    import highdicom as hd
    from pydicom.sr.codedict import codes

    drawn = list(_outlined_slices(finding, source=source))
    common: dict[str, Any] = {
        "tracking_identifier": hd.sr.TrackingIdentifier(
            uid=tracking_uid(analysis, finding), identifier=tracking_id(finding)
        ),
        "finding_type": codes.SCT.Nodule,
        "finding_category": codes.SCT.MorphologicallyAbnormalStructure,
        "finding_sites": [hd.sr.FindingSite(codes.SCT.Lung)],
        "algorithm_id": _algorithm(analysis),
        "measurements": list(_measurements(finding, analysis=analysis)),
        "qualitative_evaluations": list(_evaluations(analysis.assessments.get(finding.id, ()))),
    }
    group: Any
    if drawn:
        regions = [_region("POLYLINE", plane, line) for plane, lines in drawn for line in lines]
        group = hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(referenced_regions=regions, **common)
    else:
        group = hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations(
            referenced_region=_point_region(finding, source=source), **common
        )
    items = group[0].ContentSequence
    items.extend(_in_space(finding, drawn=drawn, source=source))
    items.extend(_comment(_sentence(a)) for a in analysis.assessments.get(finding.id, ()))
    return group


def _outlined_slices(
    finding: Finding, *, source: SourceImages
) -> Iterator[tuple[SourcePlane, list[NDArray[np.float64]]]]:
    """Planes that the outline meets, the key slice first, each with its lines ``[n, 3]`` in LPS mm."""
    if finding.mask is None or not finding.mask.array_zyx.any():
        return
    mask, grid = finding.mask, source.volume.geometry
    start = place_mask(mask, source.volume, name=f"finding {finding.id}")
    areas = mask.array_zyx.sum(axis=(1, 2))
    key = int(areas.argmax())
    if finding.size is not None:
        ends = grid.world_to_index(finding.size.long_axis_ends_xyz_mm)[:, 0] - start[0]
        measured = round(float(ends.mean()))
        key = measured if 0 <= measured < len(areas) and areas[measured] else key
    present = [int(z) for z in np.flatnonzero(areas)]
    for z in sorted(present, key=lambda z: (z != key, abs(z - key), z)):
        plane = source.plane(start[0] + z)
        if plane is None:
            continue
        lines = outlines(mask.array_zyx[z])
        lines = lines[:1] + [line for line in lines[1:] if abs(enclosed_area(line)) >= SPECK_PIXELS]
        slices = [np.column_stack([np.full(len(line), z), line]) + start for line in lines]
        if slices:
            yield plane, [grid.index_to_world(line) for line in slices]


def _reference(plane: SourcePlane) -> dict[str, Any]:
    return {
        "referenced_sop_class_uid": plane.instance.sop_class_uid,
        "referenced_sop_instance_uid": plane.instance.sop_instance_uid,
        "referenced_frame_numbers": None if plane.instance.frame is None else [plane.instance.frame],
    }


def _region(kind: str, plane: SourcePlane, world: NDArray[np.float64]) -> Any:
    import highdicom as hd

    return hd.sr.ImageRegion(
        graphic_type=kind,
        graphic_data=plane.image_coordinates(world),
        source_image=hd.sr.SourceImageForRegion(**_reference(plane)),
    )


def _point_region(finding: Finding, *, source: SourceImages) -> Any:
    """A circle of the finding's diameter on the nearest slice, or a point where the diameter is unknown."""
    grid = source.volume.geometry
    plane = source.plane(source.nearest(float(grid.world_to_index(finding.center_xyz_mm)[0])))
    if plane is None:
        raise ValueError("nearest() names a slice that has an instance")
    center = np.asarray(finding.center_xyz_mm, dtype=np.float64)
    if not finite(finding.diameter_mm):
        return _region("POINT", plane, center[None])
    edge = center + plane.per_column / np.linalg.norm(plane.per_column) * (finding.diameter_mm or 0.0) / 2
    return _region("CIRCLE", plane, np.stack([center, edge]))


def _in_space(
    finding: Finding, *, drawn: Sequence[tuple[SourcePlane, list[NDArray[np.float64]]]], source: SourceImages
) -> Iterator[Any]:
    """The finding in the patient's frame of reference: its center, the outline on its key slice, its axes."""
    import highdicom as hd
    from pydicom.sr.codedict import codes

    frame = source.frame_of_reference_uid
    if not frame:
        return
    shapes = [(codes.DCM.Center, "POINT", np.array([finding.center_xyz_mm]))]
    if drawn:
        shapes.append((codes.DCM.Outline, "POLYGON", drawn[0][1][0]))
    if (size := finding.size) is not None:  # the ROI templates keep coordinates out of the measurements themselves
        shapes.append((codes.SCT.LongAxis, "POLYLINE", np.array(size.long_axis_ends_xyz_mm)))
        shapes.append((codes.SCT.ShortAxis, "POLYLINE", np.array(size.short_axis_ends_xyz_mm)))
    for name, kind, points in shapes:
        if not np.isfinite(points).all():
            continue
        yield hd.sr.Scoord3DContentItem(
            name=name,
            graphic_type=kind,
            graphic_data=points,
            frame_of_reference_uid=frame,
            relationship_type=hd.sr.RelationshipTypeValues.CONTAINS,
        )


def _measurements(finding: Finding, *, analysis: Analysis) -> Iterator[Any]:
    """Sizes, density, certainty, risk and traits as TID 300 measurements."""
    from pydicom.sr.codedict import codes

    mm, mm3, hu = codes.UCUM.Millimeter, codes.UCUM.CubicMillimeter, codes.UCUM.HounsfieldUnit
    if (size := finding.size) is not None:
        yield from _number(codes.SCT.LongAxis, size.long_axis_mm, mm)
        yield from _number(codes.SCT.ShortAxis, size.short_axis_mm, mm)
        yield from _number(codes.SCT.Diameter, size.mean_diameter_mm, mm, derivation=codes.SCT.Mean)
        yield from _number(codes.SCT.Volume, size.volume_mm3, mm3)
        yield from _number(codes.DCM.AttenuationCoefficient, size.mean_hu, hu, derivation=codes.SCT.Mean)
        yield from _number(_code(*SOLID_CODES["diameter"]), size.solid_diameter_mm, mm)
        yield from _number(_code(*SOLID_CODES["volume"]), size.solid_volume_mm3, mm3)
    elif finding.diameter_mm is not None:
        yield from _number(codes.SCT.Diameter, finding.diameter_mm, mm, derivation=codes.SCT.Mean)
    if finding.score is not None:
        yield from _number(codes.DCM.CertaintyOfFinding, 100 * finding.score, codes.UCUM.Percent)
    predictions = analysis.predictions_of(finding.id)
    if (risk := predictions.get("malignancy")) is not None:
        yield from _probability(_code(*MALIGNANCY_CODE), risk, name_model=True)
    for target in TRAITS:
        if target in predictions:
            trait = predictions[target]
            other_model = risk is None or trait.fingerprint != risk.fingerprint
            yield from _probability(_code(*TRAIT_CODES[target]), trait, name_model=other_model)


def _number(name: Any, value: float | None, unit: Any, **more: Any) -> Iterator[Any]:
    import highdicom as hd

    if value is not None and finite(value):
        yield hd.sr.Measurement(name=name, value=round(float(value), 2), unit=unit, **more)


def _probability(name: Any, prediction: Prediction, *, name_model: bool) -> Iterator[Any]:
    """A probability in percent with its interval as measurement uncertainty (TID 310)."""
    import highdicom as hd
    from pydicom.sr.codedict import codes

    if not finite(prediction.probability):
        return
    percent = 100 * prediction.probability
    properties = model = None
    if prediction.interval is not None and all(map(finite, prediction.interval)):
        low, high = (100 * bound for bound in prediction.interval)
        properties = hd.sr.MeasurementProperties(
            upper_measurement_uncertainty=round(max(high - percent, 0.0), 2),
            lower_measurement_uncertainty=round(max(percent - low, 0.0), 2),
        )
    if name_model and prediction.fingerprint:
        model = hd.sr.AlgorithmIdentification("Spicula", __version__, parameters=[prediction.fingerprint])
    for measurement in _number(name, percent, codes.UCUM.Percent, properties=properties, algorithm_id=model):
        for item in measurement[0].get("ContentSequence", ()):
            if item.ValueType == "NUM":  # highdicom gives every uncertainty the unit 1, also that of a percentage
                units = hd.sr.CodedConcept.from_code(codes.UCUM.Percent)
                item.MeasuredValueSequence[0].MeasurementUnitsCodeSequence = [units]
        yield measurement


def _evaluations(assessments: Sequence[Assessment]) -> Iterator[Any]:
    """The Lung-RADS category as a coded evaluation (the others are sentences)."""
    import highdicom as hd

    for assessment in assessments:
        if assessment.system.startswith("Lung-RADS") and assessment.category:
            code = re.sub(r"[^0-9A-Z]", "", assessment.category.upper())[:6]
            yield hd.sr.QualitativeEvaluation(
                name=hd.sr.CodedConcept("RID50134", "RADLEX", "Lung-RADS assessment"),
                value=_code(f"LUNGRADS-{code}", f"{assessment.system} category {assessment.category}"),
            )


def _sentence(assessment: Assessment) -> str:
    text = f"{assessment.system}: {assessment.category}. {assessment.management.rstrip('.')}."
    if assessment.given:
        text += f" Given: {'; '.join(assessment.given)}."
    if assessment.lacking:
        text += f" Not known: {'; '.join(assessment.lacking)}."
    return text
