"""The data sets that Spicula reads: this folder is the list of them.

A data set is one module here with

- ``DESCRIPTION``: what it is, where it is and under which licence;
- ``load_cases(root, ...)``: its Cases, one after the other, the pixels read on demand; where these may be DICOM
  it takes ``gaps`` and ``tilt`` as :func:`spicula.formats.read_volume` does;
- ``verify(root)``: one :class:`Check` after the other on the files under ``root``.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

from spicula.core.errors import InputError
from spicula.core.finding import Case

State: TypeAlias = Literal["ok", "warning", "broken", "missing"]


@dataclass(frozen=True, slots=True)
class Description:
    """What a data set is.

    Args:
        name: As it is called on the command line.
        title: Full name.
        contents: What is in it, in a sentence or two: patients, scans, findings, what is known of each.
        licence: Of the data, with its conditions.
        size: To download, in words: ``"125 GB"``.
        url: Page of the data set.
        citation: Paper with DOI.
        layout: The files under ROOT, a line each: ``"annotations.csv   1,186 nodules"``; optional ones say so.
        patients: How many, where it is published.
        scans: How many, where it is published.
        findings: How many, where it is published.
    """

    name: str
    title: str
    contents: str
    licence: str
    size: str
    url: str
    citation: str
    layout: tuple[str, ...]
    patients: int | None = None
    scans: int | None = None
    findings: int | None = None


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    Args:
        state: ``ok``; ``warning`` (usable, but not as published); ``broken`` (a file or row that cannot be used);
            ``missing`` (a file that should be there).
        what: What was looked at, in a few words: ``"annotations"``.
        message: What was found, with what would mend it where it is not ok.
        path: The file, None where it is about the whole.
        line: Line or row in it.
    """

    state: State
    what: str
    message: str
    path: Path | None = None
    line: int | None = None


class Dataset(Protocol):
    """What a module of this folder offers."""

    DESCRIPTION: Description

    def load_cases(self, root: Path) -> Iterator[Case]:
        """Cases, one after the other.

        Args:
            root: Folder as :attr:`Description.layout` lists it.

        Raises:
            InputError: A file that the cases need is missing or broken; names it.
        """
        ...

    def verify(self, root: Path, *, deep: bool = False) -> Iterator[Check]:
        """Look at every file under a folder; one broken file is one Check, never an exception.

        Args:
            root: As above.
            deep: Read the pixels of every image, not only its header.

        Raises:
            InputError: There is no such folder.
        """
        ...


def dataset_names() -> tuple[str, ...]:
    """Names of all data sets, in alphabetical order."""
    return tuple(sorted(_modules()))


def dataset(name: str) -> Dataset:
    """One data set by its name.

    Raises:
        InputError: There is none of that name.

    Example:
        >>> dataset("luna16").DESCRIPTION.scans
        888
    """
    modules = _modules()
    if name not in modules:
        raise InputError("data set", got=repr(name), expected=f"one of {', '.join(sorted(modules))}")
    return modules[name]


def _modules() -> dict[str, Dataset]:
    found: dict[str, Dataset] = {}
    for entry in pkgutil.iter_modules([str(Path(__file__).parent)]):
        module = import_module(f"spicula.datasets.{entry.name}")
        description = getattr(module, "DESCRIPTION", None)
        if isinstance(description, Description):
            found[description.name] = module
    return found
