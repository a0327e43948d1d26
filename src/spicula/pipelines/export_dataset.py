"""A data set in another layout: the job behind ``spicula dataset export``."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from inspect import signature
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from spicula.core.errors import InputError
from spicula.core.files import ASIDE, folder_written_aside
from spicula.core.finding import Case
from spicula.core.volume import Volume
from spicula.datasets.catalog import dataset
from spicula.datasets.export_coco import ANNOTATIONS, Bits, Export, file_stem, write_coco
from spicula.datasets.export_nndetection import write_nndetection
from spicula.datasets.nodule_csv_writer import write_nodules
from spicula.datasets.places import has_place
from spicula.dicom.gaps import Gaps
from spicula.dicom.reader import Tilt
from spicula.formats import find_scans, write_nifti

Layout: TypeAlias = Literal["nodule-csv", "coco", "nndetection"]

TABLE, RECORD, SKIPPED = "nodules.csv", "export.json", "skipped.csv"
"""The table of a nodule CSV; what was done; what was left out, with the reason."""


def export(
    name: str,
    root: Path,
    *,
    layout: Layout,
    out: Path,
    bits: Bits = 16,
    task_number: int = 100,
    gaps: Gaps = "error",
    tilt: Tilt = "error",
    progress: Callable[[int], None] | None = None,
) -> list[str]:
    """Write a data set in another layout; the folder is filled whole or not at all, one volume in memory at a time.

    Args:
        name: Of the data set.
        root: Its folder.
        layout: ``"nodule-csv"`` (one table in LPS mm; images stay where they are, and are written as NIfTI beside
            the table only where no single file or folder holds them), ``"coco"`` (axial slices as PNG with boxes) or
            ``"nndetection"`` (NIfTI with instance masks).
        out: A folder that is not there yet or is empty; what a killed export left there is removed.
        bits: Of COCO's PNG files: 16 (HU + 32768) or 8 (a window).
        task_number: Of nnDetection's task.
        gaps: For DICOM, as for :func:`spicula.formats.read_volume`.
        tilt: The same.
        progress: Called with the number of cases seen.

    Returns:
        What was written and what was left out, in lines for people.

    Raises:
        InputError: No such data set, folder or layout; ``gaps`` or ``tilt`` for a data set without DICOM; ``out`` holds
            something; or nothing could be written.
    """
    if layout not in get_args(Layout):
        raise InputError("layout", got=layout, expected=f"one of {', '.join(get_args(Layout))}")
    if bits == 8 and layout != "coco":
        raise InputError("8 bits", got=f"layout {layout}", expected="layout coco: the others keep HU")
    about = dataset(name).DESCRIPTION
    cases = _counted(_load(name, root, {"gaps": gaps, "tilt": tilt}), progress)
    _check_empty(out)
    with folder_written_aside(out, replaces=(SKIPPED, RECORD)) as aside:
        if layout == "coco":
            done = write_coco(cases, aside, description=about.title, licence=about.licence, bits=bits)
        elif layout == "nndetection":
            task = re.sub(r"[^0-9A-Za-z]", "", about.name.title())
            done = write_nndetection(cases, aside, task=task, number=task_number)
        else:
            done = _write_table(cases, aside)
        if not done.findings:
            reason = f": {done.skipped[0][2]}" if done.skipped else ""
            hint = None if "Hint: " in reason else f"spicula dataset verify {name} {root}"
            raise InputError(f"{root}: nothing could be written{reason}", hint=hint)
        _write_record(aside, name, layout, done)
    return _lines(layout, out, done)


def _load(name: str, root: Path, policies: Mapping[str, str]) -> Iterator[Case]:
    """The cases, with the policies that are not the usual ones; a data set that has none of them refuses."""
    load: Callable[..., Iterator[Case]] = dataset(name).load_cases
    asked = {option: policy for option, policy in policies.items() if policy != "error"}
    for option in sorted(asked.keys() - signature(load).parameters.keys()):
        raise InputError(f"--{option}", got=f"data set {name}, which has no DICOM", expected="one with DICOM series")
    return load(root, **asked)


def _check_empty(out: Path) -> None:
    """Refuse a folder that holds something; what a killed export left there is removed."""
    there = list(out.iterdir()) if out.is_dir() else []
    left = [path for path in there if path.name.startswith(ASIDE) and path.is_dir() and not path.is_symlink()]
    if len(there) > len(left) or (out.exists() and not out.is_dir()):
        raise InputError(f"--out {out}", got="something that is there", expected="a new or empty folder")
    for path in left:
        shutil.rmtree(path)


def _counted(cases: Iterable[Case], progress: Callable[[int], None] | None) -> Iterator[Case]:
    for number, case in enumerate(cases, start=1):
        yield case
        if progress:
            progress(number)


def _write_table(cases: Iterable[Case], folder: Path) -> Export:
    """The table, with what cannot be in it told."""
    done = Export()
    images: dict[int, str] = {}

    def usable() -> Iterator[Case]:
        for case in cases:
            for finding in case.findings:
                if not has_place(finding):
                    done.skipped.append((case.case_id, finding.id, "its place is not known"))
            if not any(map(has_place, case.findings)):
                done.skipped += [] if case.findings else [(case.case_id, "", "no finding, so no row")]
                continue
            try:
                volume = case.load_volume()
            except (InputError, OSError) as error:
                done.skipped.append((case.case_id, "", str(error)))
                continue
            images[id(case)] = _image_of(case, volume, folder, done)
            del volume
            done.cases += 1
            yield case

    done.findings = write_nodules(usable(), folder / TABLE, image_of=lambda case: images.pop(id(case)))
    return done


def _image_of(case: Case, volume: Volume, folder: Path, done: Export) -> str:
    """Where the image of a case is; written beside the table where ``read_volume`` would not read it from there."""
    source = Path(volume.acquisition.source) if volume.acquisition.source else None
    if source is not None and _is_read_from(source, volume):
        return str(source.resolve())
    done.images += 1
    path = write_nifti(folder / "images" / f"{file_stem(case.case_id, number=done.images)}.nii.gz", volume)
    return path.relative_to(folder).as_posix()


def _is_read_from(source: Path, volume: Volume) -> bool:
    """Whether ``read_volume`` of the path alone gives this volume."""
    try:
        scans = find_scans(source)
    except InputError:
        return False
    series = scans[0].series
    if len(scans) > 1:
        return False
    # a file that is no DICOM has no UID of its own; LUNA16 and LUNA25 give it that of its name
    return series.series_uid == volume.series_uid if series else source.is_file() or not volume.series_uid


def _write_record(folder: Path, name: str, layout: Layout, done: Export) -> None:
    from spicula import __version__

    with (folder / SKIPPED).open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["case_id", "finding_id", "reason"])
        writer.writerows(done.skipped)
    record = {
        "dataset": name,
        "layout": layout,
        "spicula": __version__,
        "cases": done.cases,
        "findings": done.findings,
        "images_written": done.images,
        "findings_as_balls": done.balls,
        "skipped": len(done.skipped),
    }
    (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _lines(layout: Layout, out: Path, done: Export) -> list[str]:
    lines = [f"{_several(done.findings, 'finding')} of {_several(done.cases, 'case')}"]
    if done.balls:
        lines.append(f"without an outline, so balls of their diameter: {done.balls:,}")
    if done.skipped:
        lines.append(f"{len(done.skipped):,} left out, with the reason: {out / SKIPPED}")
    if layout == "nodule-csv":
        return [*lines, f"\nNext: spicula score {out / TABLE} --out predictions.csv"]
    return [*lines, f"\nWritten: {out / ANNOTATIONS if layout == 'coco' else out}"]


def _several(count: int, word: str) -> str:
    return f"{count:,} {word}{'' if count == 1 else 's'}"
