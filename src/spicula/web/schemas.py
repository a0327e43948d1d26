"""What the page's addresses take and give, as types; the viewer's own types are made from them.

Places are LPS millimeters, boxes pixels of a slice as stored, times UTC in ISO 8601, dates ``YYYYMMDD`` as in DICOM.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Point = tuple[float, float, float]
Interval = tuple[float, float]
Date = Annotated[str, Field(pattern=r"^([0-9]{8})?$")]
Uid = Annotated[str, Field(max_length=64)]
JobState = Literal["queued", "running", "done", "failed", "cancelled"]
FindingState = Literal["proposed", "accepted", "rejected"]
Scope = Literal["all", "same-patient", "cross-patient"]


class Told(BaseModel):
    """An answer; fields beyond those that are named are a mistake of ours."""

    model_config = ConfigDict(extra="forbid")


class Asked(BaseModel):
    """A request; fields that nobody knows are refused, numbers must be finite."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class About(Told):
    """What runs here."""

    name: str
    version: str
    disclaimer: str
    users: bool = Field(description="Whether one logs in")
    login_elsewhere: bool = Field(description="Whether OpenID Connect is set up, at /api/login/oidc")
    bundles: list[str] = Field(description="Fingerprints of the shipped networks")
    second_viewer: bool = Field(description="Whether OHIF is at /ohif")
    destinations: list[str] = Field(description="Archives that results can be sent to")
    sources: list[str] = Field(description="Archives that studies can be brought in from")
    index: IndexFacts | None = Field(description="Where similar cases are looked for")
    window_presets: list[WindowPreset]


class IndexFacts(Told):
    """An index of past cases."""

    name: str
    findings: int
    patients: int
    fields: list[str] = Field(description="What a condition may name")


class WindowPreset(Told):
    """A window on HU."""

    name: str
    center_hu: float
    width_hu: float
    key: str = Field(description="The key that takes it")


class StudySummary(Told):
    """A study in a list."""

    study_uid: str
    patient_id: str
    patient_name: str
    study_date: str
    description: str
    accession_number: str
    body_part: str
    received_at: str
    origin: str = Field(description="How it came: upload, stow, dicomweb, dimse, command")
    deidentified: bool
    modalities: list[str]
    series: int
    instances: int
    findings: int = Field(description="Proposed or accepted")
    highest_malignancy: float | None
    lung_rads: str | None = Field(description="The highest category of its findings")
    analysis: JobState | None = Field(description="Where its latest analysis stands; None for none")
    job_id: str | None = Field(description="That analysis")


class StudyQuery(Asked):
    """Which studies are wanted."""

    text: Annotated[str, Field(max_length=100)] = Field("", description="In id, name, description, accession number")
    date_from: Date = Field("", description="First study date")
    date_to: Date = Field("", description="Last study date")
    limit: int = Field(50, ge=1, le=500)
    offset: int = Field(0, ge=0, le=10**9)


class StudyPage(Told):
    """A part of the list of studies."""

    total: int
    studies: list[StudySummary]


class SeriesFacts(Told):
    """A series of a study."""

    series_uid: str
    modality: str
    description: str
    number: int | None
    slice_thickness_mm: float | None
    instances: int
    bytes: int


class Study(StudySummary):
    """A study with all that is shown beside its images."""

    all_series: list[SeriesFacts]
    analyzed_series_uid: str | None = Field(description="Of the latest analysis; else the best series for reading")
    geometry: GridFacts | None = Field(description="Of the analyzed series")
    warnings: list[str] = Field(description="Of the latest analysis")
    priors: list[StudySummary] = Field(description="Earlier and later studies of the patient, the newest first")
    exports: list[str] = Field(description="What can be had: report.html, report.json, findings.csv, sr.dcm, seg.dcm")


class GridFacts(Told):
    """The grid of a volume: index (slice, row, column) to LPS mm."""

    shape_zyx: tuple[int, int, int]
    spacing_zyx_mm: Point
    affine_lps: list[list[float]] = Field(description="4 x 4, of (z, y, x, 1)")
    frame_of_reference_uid: str


class Share(Told):
    """A probability with its interval."""

    probability: float
    interval: Interval | None


class Trait(Told):
    """A trait of a nodule."""

    name: str = Field(description="As in report.json, for example spiculation_present")
    label: str = Field(description="In a radiologist's word")
    against: str = Field(description="Its opposite")
    probability: float
    interval: Interval | None


class Word(Told):
    """A descriptor that speaks for or against malignancy."""

    text: str
    share: float = Field(description="Of the descriptor, by words alone, 0 to 1")
    speaks: Literal["for", "against", "neither"]


class Guideline(Told):
    """What a guideline makes of a finding."""

    system: str
    category: str
    management: str
    given: list[str]
    lacking: list[str]


class OutlineRuns(Told):
    """An outline as voxels of the series' grid: a box of the grid, in it runs of outside and inside in turn."""

    start_zyx: tuple[int, int, int]
    shape_zyx: tuple[int, int, int]
    runs: list[int] = Field(description="Lengths in C order (z, y, x), the first of voxels outside")


class Attention(Told):
    """Where the self-supervised network looked on one slice."""

    slice_index: int
    grid: list[list[float]] = Field(description="Rows of patches, 0 to 1 of the strongest")
    corner_xyz_mm: Point = Field(description="Outer corner of the first patch")
    row_end_xyz_mm: Point = Field(description="The corner at the end of the first row")
    column_end_xyz_mm: Point = Field(description="The corner at the end of the first column")


class Evidence(Told):
    """What past cases like a finding say."""

    malignant: float | None = Field(description="Share of malignant outcomes among them")
    interval: Interval | None
    sentences: list[str]
    unlike_any: bool = Field(description="Whether nothing in the index is like it")


class Growth(Told):
    """A finding beside the same nodule in another study."""

    prior_study_uid: str
    prior_finding_id: str
    days: float = Field(description="From the other study to this one; below 0 where that is later")
    diameter_before_mm: float | None
    volume_before_mm3: float | None
    growth_mm: float | None
    volume_doubling_time_days: float | None = Field(description="None where it did not grow, or is not outlined")
    distance_mm: float = Field(description="Between the two places, once the lungs are laid over each other")


class Finding(Told):
    """A finding as it stands."""

    id: str
    study_uid: str
    series_uid: str
    number: int = Field(description="In its study, from 1")
    state: FindingState
    version: int
    by_program: bool
    changed_at: str
    changed_by: str
    note: str
    center_xyz_mm: Point
    slice_index: int
    sop_instance_uid: str | None
    score: float | None
    diameter_mm: float | None
    long_axis_mm: float | None
    short_axis_mm: float | None
    long_axis_ends_xyz_mm: tuple[Point, Point] | None
    short_axis_ends_xyz_mm: tuple[Point, Point] | None
    volume_mm3: float | None
    mean_hu: float | None
    malignancy: Share | None
    traits: list[Trait]
    lung_rads: Guideline | None
    fleischner: Guideline | None
    words: list[Word]
    evidence: Evidence | None
    attention: Attention | None
    outline: OutlineRuns | None
    growth: list[Growth]


class NewFinding(Asked):
    """A finding that a person adds; it is outlined, measured and rated."""

    series_uid: Uid
    center_xyz_mm: Point
    note: Annotated[str, Field(max_length=2000)] = ""


class FindingChange(Asked):
    """What a person says of a finding. A new center has it outlined, measured and rated anew."""

    seen: int = Field(ge=1, description="The version that was on the screen")
    state: FindingState | None = None
    center_xyz_mm: Point | None = None
    diameter_mm: Annotated[float, Field(gt=0, le=300)] | None = Field(None, description="As a person measured it")
    note: Annotated[str, Field(max_length=2000)] | None = None


class Version(Told):
    """One version of a finding."""

    version: int
    at: str
    by: str
    what: Literal["proposed", "added", "accepted", "rejected", "corrected", "reopened"]
    state: FindingState
    diameter_mm: float | None
    center_xyz_mm: Point
    note: str


class Box(Asked):
    """A box that was drawn on a slice."""

    slice_index: int = Field(ge=0, description="Along the volume, as in the study's geometry")
    x0: float
    y0: float
    x1: float
    y1: float


class SearchRequest(Asked):
    """What similar cases are wanted of: a finding, or a place or box in a series."""

    finding_id: Annotated[str, Field(max_length=32)] | None = None
    series_uid: Uid | None = None
    point_xyz_mm: Point | None = None
    box: Box | None = None
    k: int = Field(10, ge=1, le=100)
    scope: Scope = "all"
    where: Annotated[str, Field(max_length=500)] = ""


class Match(Told):
    """A past case."""

    rank: int
    pid: str
    nodule_id: str
    distance: float
    facts: dict[str, str | float | int | bool | None] = Field(description="What the index knows of it")
    outcome: str = Field(description="In words; empty where the index has none")
    picture: str | None = Field(description="data: URI of a PNG; None where the index's scans are not at hand")


class SearchAnswer(Told):
    """Past cases, the most alike first."""

    index: str
    matches: list[Match]
    evidence: Evidence
    picture: str | None = Field(description="Of what was asked, likewise")


class Job(Told):
    """A job and where it stands."""

    id: str
    kind: str
    state: JobState
    tries: int
    created_at: str
    created_by: str
    started_at: str | None
    ended_at: str | None
    progress: float
    message: str
    study_uid: str | None
    result: dict[str, Any] | None


class Send(Asked):
    """Where to send a study's results."""

    destination: Annotated[str, Field(max_length=64)]
    what: list[Literal["sr", "seg"]] = ["sr", "seg"]


class Pull(Asked):
    """What to bring in from an archive."""

    source: Annotated[str, Field(max_length=64)]
    study_uid: Uid


class ArchiveQuery(Asked):
    """Which studies of an archive are wanted; ``*`` and ``?`` as in DICOM."""

    patient_id: Annotated[str, Field(max_length=64)] = ""
    patient_name: Annotated[str, Field(max_length=324)] = ""
    study_date: Annotated[str, Field(max_length=17)] = Field("", description="YYYYMMDD, or a range with a dash")
    accession_number: Annotated[str, Field(max_length=16)] = ""
    limit: int = Field(50, ge=1, le=500)


class RemoteStudy(Told):
    """A study in an archive."""

    study_uid: str
    patient_id: str
    patient_name: str
    study_date: str
    description: str
    accession_number: str
    modalities: list[str]
    instances: int | None
    here: bool = Field(description="Whether it is in the store already")


class AuditEntry(Told):
    """Who did what."""

    id: int
    at: str
    user: str
    action: str
    object: str
    detail: dict[str, Any] | None
    address: str


class Failure(Told):
    """Why a request was refused."""

    error: str


for _model in (About, Study):
    _model.model_rebuild()
