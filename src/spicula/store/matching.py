"""Studies, series and instances by attributes, as DICOM queries match them: wildcards, ranges of dates, lists of UIDs.

References:
    DICOM PS3.4, C.2.2.2 (attribute matching).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Engine, Select, func, select

from spicula.core.errors import InputError
from spicula.store.tables import INSTANCES, SERIES, STUDIES

Row = Mapping[str, Any]

STUDY_FIELDS = {
    "StudyInstanceUID": STUDIES.c.study_uid, "PatientID": STUDIES.c.patient_id, "PatientName": STUDIES.c.patient_name,
    "StudyDate": STUDIES.c.study_date, "StudyDescription": STUDIES.c.description,
    "AccessionNumber": STUDIES.c.accession_number,
}  # fmt: skip
SERIES_FIELDS = {
    "SeriesInstanceUID": SERIES.c.series_uid, "Modality": SERIES.c.modality, "SeriesNumber": SERIES.c.number,
    "SeriesDescription": SERIES.c.description,
}  # fmt: skip
INSTANCE_FIELDS = {
    "SOPInstanceUID": INSTANCES.c.sop_instance_uid, "SOPClassUID": INSTANCES.c.sop_class_uid,
    "InstanceNumber": INSTANCES.c.number,
}  # fmt: skip
"""Attributes that can be matched, by their keyword."""

_OF_STUDY = tuple(column for column in STUDIES.c if column is not STUDIES.c.newest_at)
"""What a study is; that more of it came is for those who watch."""

_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
_NUMBERS = ("SeriesNumber", "InstanceNumber")


def studies_matching(engine: Engine, filters: Mapping[str, str], *, limit: int, offset: int = 0) -> tuple[Row, ...]:
    """Studies, the newest received first.

    Args:
        engine: Of the store.
        filters: By keyword; ``ModalitiesInStudy`` too. Empty values match everything.
        limit: Most rows.
        offset: Rows to pass over.

    Returns:
        Columns of ``studies`` but ``newest_at``, with ``modalities`` (sorted), ``series`` and ``instances``.

    Raises:
        InputError: An attribute that cannot be matched; the known ones are listed.
    """
    modality = filters.get("ModalitiesInStudy", "")
    rest = {name: value for name, value in filters.items() if name != "ModalitiesInStudy"}
    query: Select[Any] = select(*_OF_STUDY).where(*_conditions(rest, STUDY_FIELDS, also=("ModalitiesInStudy",)))
    if modality:
        query = query.where(STUDIES.c.study_uid.in_(select(SERIES.c.study_uid).where(SERIES.c.modality == modality)))
    query = query.order_by(STUDIES.c.received_at.desc(), STUDIES.c.study_uid).limit(limit).offset(offset)
    with engine.connect() as connection:
        rows = [dict(row) for row in connection.execute(query).mappings()]
        counted = (
            select(SERIES.c.study_uid, SERIES.c.modality,
                   func.count(func.distinct(SERIES.c.series_uid)).label("series"),
                   func.count(INSTANCES.c.sop_instance_uid).label("instances"))
            .outerjoin(INSTANCES, INSTANCES.c.series_uid == SERIES.c.series_uid)
            .where(SERIES.c.study_uid.in_([row["study_uid"] for row in rows]))
            .group_by(SERIES.c.study_uid, SERIES.c.modality)
        )  # fmt: skip
        parts = connection.execute(counted).mappings().all()
    for row in rows:
        own = [part for part in parts if part["study_uid"] == row["study_uid"]]
        row["modalities"] = sorted(part["modality"] for part in own)
        row |= {name: sum(part[name] for part in own) for name in ("series", "instances")}
    return tuple(rows)


def series_matching(engine: Engine, filters: Mapping[str, str], *, limit: int, offset: int = 0) -> tuple[Row, ...]:
    """Series by number; the filters are those of series and of ``StudyInstanceUID``, else as above.

    Returns:
        Columns of ``series`` with ``instances``.
    """
    fields = {**SERIES_FIELDS, "StudyInstanceUID": SERIES.c.study_uid}
    query = (
        select(SERIES, func.count(INSTANCES.c.sop_instance_uid).label("instances"))
        .outerjoin(INSTANCES, INSTANCES.c.series_uid == SERIES.c.series_uid)
        .where(*_conditions(filters, fields))
        .group_by(SERIES.c.series_uid)
        .order_by(SERIES.c.study_uid, SERIES.c.number, SERIES.c.series_uid)
    )
    return _rows(engine, query.limit(limit).offset(offset))


def instances_matching(engine: Engine, filters: Mapping[str, str], *, limit: int, offset: int = 0) -> tuple[Row, ...]:
    """Instances by number; the filters are those of instances and of study and series UID.

    Returns:
        Columns of ``instances`` with ``study_uid``.
    """
    fields = {
        **INSTANCE_FIELDS, "SeriesInstanceUID": INSTANCES.c.series_uid, "StudyInstanceUID": SERIES.c.study_uid,
    }  # fmt: skip
    query = (
        select(INSTANCES, SERIES.c.study_uid)
        .join(SERIES, SERIES.c.series_uid == INSTANCES.c.series_uid)
        .where(*_conditions(filters, fields))
        .order_by(INSTANCES.c.series_uid, INSTANCES.c.number, INSTANCES.c.sop_instance_uid)
    )
    return _rows(engine, query.limit(limit).offset(offset))


def _rows(engine: Engine, query: Select[Any]) -> tuple[Row, ...]:
    with engine.connect() as connection:
        return tuple(dict(row) for row in connection.execute(query).mappings())


def _conditions(
    filters: Mapping[str, str], fields: Mapping[str, Any], *, also: Sequence[str] = ()
) -> list[ColumnElement[bool]]:  # fmt: skip
    unknown = sorted(set(filters) - set(fields))
    if unknown:
        known = ", ".join([*fields, *also])
        raise InputError(f"query by {unknown[0][:40]}", got="an attribute that is not kept", expected=f"one of {known}")
    return [_condition(name, fields[name], value) for name, value in filters.items() if value not in ("", "*")]


def _condition(name: str, column: Any, value: str) -> ColumnElement[bool]:
    condition: ColumnElement[bool]
    if name in _UIDS:
        condition = column.in_([one.strip() for one in value.replace("\\", ",").split(",")])
    elif name in _NUMBERS:
        if not value.lstrip("-").isdigit() or len(value) > 9:
            raise InputError(f"query by {name}", got=repr(value[:40]), expected="a whole number")
        condition = column == int(value)
    elif name == "StudyDate":
        first, dash, last = value.partition("-")
        if not all(part == "" or (len(part) == 8 and part.isdigit()) for part in (first, last)) or not (first or last):
            raise InputError("query by StudyDate", got=repr(value[:40]), expected="YYYYMMDD, or a range with a dash")
        ends = [column >= first] if first else []
        ends += [column <= (last or first)] if last or not dash else []
        condition = ends[0] if len(ends) == 1 else ends[0] & ends[1]
    else:
        condition = func.lower(column).like(_pattern(value.lower()), escape="\\")
    return condition


def _pattern(value: str) -> str:
    r"""DICOM's wildcards as those of SQL.

    Example:
        >>> print(_pattern("doe^j*_?"))
        doe^j%\__
    """
    escaped = "".join(f"\\{c}" if c in "\\%_" else c for c in value)
    return escaped.replace("*", "%").replace("?", "_")
