"""Findings: seen, added, accepted, rejected, corrected; who did so and when."""

from __future__ import annotations

from fastapi import APIRouter

from spicula.web.schemas import Finding, FindingChange, NewFinding, Version
from spicula.web.services import Address, Asking, Place, Served

router = APIRouter(prefix="/api", tags=["findings"])


@router.get("/studies/{study_uid}/findings")
def list_findings(study_uid: str, served: Served, _: Asking) -> list[Finding]:
    """Findings of a study in the order they came, the rejected too."""
    return [Finding.model_validate(one) for one in served.reading.findings(study_uid)]


@router.post("/studies/{study_uid}/findings", status_code=201)
def add_finding(
    study_uid: str, given: NewFinding, place: Place, served: Served, user: Asking, address: Address
) -> Finding:  # fmt: skip
    """Add what lies at a place: it is outlined, measured and rated."""
    added = served.reading.add(study_uid, given.series_uid, given.center_xyz_mm, by=user.name, note=given.note)
    place.audit.note(user.name, "finding.add", object=added.id, address=address)
    return Finding.model_validate(served.reading.finding(added.id))


@router.patch("/findings/{finding_id}")
def change_finding(
    finding_id: str, given: FindingChange, place: Place, served: Served, user: Asking, address: Address
) -> Finding:  # fmt: skip
    """Accept, reject, reopen or correct a finding; 409 where another change came first."""
    changed = served.reading.change(
        finding_id, seen=given.seen, by=user.name, state=given.state, center_xyz_mm=given.center_xyz_mm,
        diameter_mm=given.diameter_mm, note=given.note,
    )  # fmt: skip
    detail = {"version": changed.version, "state": changed.state}
    place.audit.note(user.name, "finding.change", object=finding_id, detail=detail, address=address)
    return Finding.model_validate(served.reading.finding(finding_id))


@router.get("/findings/{finding_id}/history")
def history(finding_id: str, place: Place, _: Asking) -> list[Version]:
    """Every version of a finding, the first first."""
    return [
        Version(
            version=one.version, at=one.at, by=one.by, what=one.what, state=one.state,
            diameter_mm=one.content.get("diameter_mm"), center_xyz_mm=one.content["center_xyz_mm"],
            note=one.content.get("note", ""),
        )
        for one in place.findings.history(finding_id)
    ]  # fmt: skip
