"""A bundle: network + weights + preprocessing + card, one folder, one identity."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spicula.core.errors import BundleError

MANIFEST = "bundle.json"
FORMAT = 1
SHIPPED = Path(__file__).resolve().parent.parent / "weights"
"""Folder of the bundles that come inside the package."""

REQUIRED = ("format", "name", "version", "task", "files", "preprocessing", "outputs", "card")
"""Keys that every manifest has; ``card`` holds data, licence, metrics, intended_use and limits."""


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@dataclass(frozen=True, slots=True)
class Bundle:
    """A trained model with all that its use needs.

    Args:
        folder: Where its files are.
        manifest: The content of ``bundle.json``.
    """

    folder: Path
    manifest: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Short name, for example ``"nodule-risk"``."""
        return str(self.manifest["name"])

    @property
    def task(self) -> str:
        """What it does: ``"detection"``, ``"outline"``, ``"risk"``, ``"semantic"`` or ``"features"``."""
        return str(self.manifest["task"])

    @property
    def preprocessing(self) -> Mapping[str, Any]:
        """Input geometry in mm and voxels, HU window, normalization."""
        return self.manifest["preprocessing"]  # type: ignore[no-any-return]

    @property
    def card(self) -> Mapping[str, Any]:
        """Data and its licence, metrics with intervals, intended use, limits."""
        return self.manifest["card"]  # type: ignore[no-any-return]

    @property
    def fingerprint(self) -> str:
        """Identity of files, preprocessing and outputs (the card may be reworded): ``name@16 hex digits``."""
        identity = {key: self.manifest[key] for key in ("files", "preprocessing", "outputs")}
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        return f"{self.name}@{digest[:16]}"

    def file(self, name: str) -> Path:
        """Path of one of its files, after checking the file's hash.

        Raises:
            BundleError: The file is not listed, is missing or does not match its hash.
        """
        expected = self.manifest["files"].get(name)
        path = self.folder / name
        if expected is None:
            raise BundleError(
                f"bundle {self.name}: file {name!r} is not listed", expected=sorted(self.manifest["files"])
            )
        if not path.is_file():
            raise BundleError(f"bundle {self.name}: {path} is missing", hint="install the package or the bundle again")
        found = sha256_of(path)
        if found != expected:
            raise BundleError(
                f"bundle {self.name}: {path} does not match its hash",
                got=found,
                expected=expected,
                hint="the file was changed or damaged; install the package or the bundle again",
            )
        return path

    def read_json(self, name: str) -> Any:
        """Parse one of its JSON files, after checking its hash."""
        return json.loads(self.file(name).read_text(encoding="utf-8"))

    def verify(self) -> None:
        """Check every file against its hash.

        Raises:
            BundleError: The first file that is missing or changed.
        """
        for name in self.manifest["files"]:
            self.file(name)


def load_bundle(name_or_folder: str | Path) -> Bundle:
    """Open a bundle by the name of a shipped one or by its folder.

    Raises:
        BundleError: There is no such bundle, or its manifest is incomplete.
    """
    folder = Path(name_or_folder)
    if not (folder / MANIFEST).is_file():
        folder = SHIPPED / str(name_or_folder)
    manifest_path = folder / MANIFEST
    if not manifest_path.is_file():
        raise BundleError(
            f"bundle {str(name_or_folder)!r} was not found",
            expected=f"a folder with {MANIFEST} or one of {[b.name for b in shipped_bundles()]}",
            hint="spicula bundle list",
        )
    try:
        manifest = json.loads(manifest_path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BundleError(f"{manifest_path} is not JSON: {error}", hint="install the bundle again") from error
    missing = [key for key in REQUIRED if key not in manifest] if isinstance(manifest, dict) else list(REQUIRED)
    if missing:
        raise BundleError(f"{manifest_path} lacks {', '.join(missing)}", hint="install the bundle again")
    if manifest["format"] != FORMAT:
        raise BundleError(f"{manifest_path}: format", got=manifest["format"], expected=FORMAT, hint="update Spicula")
    return Bundle(folder, manifest)


def shipped_bundles() -> Iterator[Bundle]:
    """The bundles inside the package, by name."""
    for manifest in sorted(SHIPPED.glob(f"*/{MANIFEST}")):
        yield load_bundle(manifest.parent)


def write_bundle(folder: Path, manifest: Mapping[str, Any], files: Mapping[str, bytes | Path]) -> Bundle:
    """Write a bundle aside and move it into place, replacing an older one of the same folder.

    Args:
        folder: Where it goes.
        manifest: All of :data:`REQUIRED` but ``format`` and ``files``, which are filled in here.
        files: Content of each file, or where it lies; such a file is moved.

    Returns:
        The bundle as it is on disk, verified.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        for name, content in files.items():
            if isinstance(content, Path):
                shutil.move(content, aside / name)
            else:
                (aside / name).write_bytes(content)
        hashes = {name: sha256_of(aside / name) for name in sorted(files)}
        complete = {"format": FORMAT, **manifest, "files": hashes}
        (aside / MANIFEST).write_text(json.dumps(complete, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        aside.chmod(0o755)
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(aside, folder)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    bundle = load_bundle(folder)
    bundle.verify()
    return bundle
