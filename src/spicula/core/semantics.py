"""What radiologists say of a nodule: the vocabulary of the semantic readings of NLST, written down once.

Nineteen features with their classes, as the readings of 1,261 NLST nodules use them, and the record of one nodule in
these words. What was not read is missing (None, or no entry), which is not the same as absent.

References:
    arXiv 2504.21344, table A1 (features, classes) and the header of its training table (columns); the solid component
    and the mean diameter are columns of that table beside the nineteen.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, TypeAlias

from spicula.core.errors import InputError

Group: TypeAlias = Literal["general", "internal", "external", "assessment"]
Kind: TypeAlias = Literal["length", "choice", "several", "presence", "scale"]

PRESENCE = ("Absent", "Present")
"""Classes of a feature that is there or not."""


@dataclass(frozen=True, slots=True)
class Feature:
    """One feature that readers describe.

    Args:
        name: Field of :class:`SemanticFeatures`.
        title: As a report calls it.
        group: Part of table A1.
        kind: ``length`` (mm); ``choice`` (one class); ``several`` (each class may hold); ``presence``; ``scale``
            (classes in rising order).
        columns: Columns of the published table that hold it; the words of all of them are joined.
        classes: Words, in our spelling; empty for a length.
        aliases: Other spellings, lower case.
    """

    name: str
    title: str
    group: Group
    kind: Kind
    columns: tuple[str, ...]
    classes: tuple[str, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def word(self, written: str) -> str:
        """Our spelling of a class.

        Args:
            written: As a table has it; case and outer spaces do not matter.

        Raises:
            InputError: It is none of the classes; names the nearest.

        Example:
            >>> FEATURES["margins"].word("spiculated/serrated")
            'Spiculated'
        """
        known = self._spellings()
        key = _spelling(written)
        if key not in known:
            raise self._unknown(written, got=repr(written))
        return known[key]

    def nearest(self, written: str) -> str | None:
        """The class whose spelling, or other spelling, is most like what was written; None for a length.

        Example:
            >>> FEATURES["consistency"].nearest("partly solid")
            'Part-solid'
        """
        known = self._spellings()
        found = difflib.get_close_matches(_spelling(written)[:_COMPARED], known, n=1, cutoff=0.0)
        return known[found[0]] if found else None

    def _spellings(self) -> dict[str, str]:
        return {name.lower(): name for name in self.classes} | dict(self.aliases)

    def _unknown(self, written: str, *, got: str) -> InputError:
        nearest = self.nearest(written)
        hint = None if nearest is None else f"the nearest is '{nearest}'"
        return InputError(self.title, got=got, expected=f"one of {', '.join(self.classes)}", hint=hint)


_COMPARED = 100
"""Characters of an unknown word that are compared with the known ones."""


def _spelling(written: str) -> str:
    return " ".join(written.split()).lower()


def _presence(name: str, title: str, group: Group, column: str, aliases: Mapping[str, str] | None = None) -> Feature:
    return Feature(name, title, group, "presence", (column,), PRESENCE, MappingProxyType(dict(aliases or {})))


_DIMPLING = {"mild dimpling": "Present", "obvious dimpling": "Present"}

_ALL = (
    Feature("longest_diameter_mm", "longest axial diameter", "general", "length", ("longest_axial_diameter_(mm)",)),
    Feature("short_diameter_mm", "short diameter", "general", "length", ("short_diameter_(mm)",)),
    Feature(
        "margins", "nodule margin", "general", "several", ("nodule_margins", "additional_nodule_margins"),
        ("Smooth", "Lobulated", "Spiculated", "Ill-defined", "Notched"),
        MappingProxyType({
            "spiculated/serrated": "Spiculated", "serrated": "Spiculated", "spiculation": "Spiculated",
            "ill defined": "Ill-defined",
        }),
    ),
    Feature(
        "consistency", "nodule consistency", "general", "choice", ("nodule_consistency",),
        ("Solid", "Part-solid", "Pure ground glass", "Semiconsolidation", "Peri-cystic"),
        MappingProxyType({
            "part solid": "Part-solid", "ground glass": "Pure ground glass", "pure ground-glass": "Pure ground glass",
            "semi-consolidation": "Semiconsolidation", "semi consolidation": "Semiconsolidation",
            "pericystic": "Peri-cystic", "peri cystic": "Peri-cystic",
        }),
    ),
    Feature(
        "shape", "nodule shape", "general", "choice", ("nodule_shape",), ("Round", "Ovoid", "Polygonal", "Irregular"),
        MappingProxyType({"complex/irregular": "Irregular", "complex": "Irregular", "oval": "Ovoid"}),
    ),
    Feature(
        "conspicuity", "nodule margin conspicuity", "general", "choice", ("nodule_margin_conspicuity",),
        ("Well marginated", "Poorly marginated"),
        MappingProxyType({"well-marginated": "Well marginated", "poorly-marginated": "Poorly marginated"}),
    ),
    _presence("reticulation", "nodule reticulation", "internal", "nodule_reticulation"),
    _presence("cyst_like_spaces", "cyst-like spaces", "internal", "cyst-like_spaces"),
    _presence("necrosis", "necrosis", "internal", "necrosis"),
    _presence("eccentric_calcification", "eccentric calcification", "internal", "eccentric_calcification"),
    _presence("cavitation", "cavitation", "internal", "cavitation"),
    _presence("bronchiectasis", "intra-nodular bronchiectasis", "internal", "intra-nodular_bronchiectasis"),
    _presence("airway_cutoff", "airway cutoff", "internal", "airway_cut-off"),
    _presence("vascular_convergence", "vascular convergence", "external", "vascular_convergence"),
    _presence("pleural_retraction", "pleural retraction", "external", "pleural_retraction", _DIMPLING),
    _presence("pleural_attachment", "pleural attachment", "external", "pleural_attachment"),
    _presence("paracicatricial_emphysema", "paracicatricial emphysema", "external", "paracicatricial_emphysema"),
    _presence("septal_stretching", "septal stretching", "external", "septal_stretching"),
    Feature(
        "suspicion", "level of suspicion of lung cancer", "assessment", "scale",
        ("level_of_suspicion_of_lung_cancer",),
        ("Very Low", "Moderately Low", "Intermediate", "Moderately High", "High"),
    ),
)  # fmt: skip

FEATURES: Mapping[str, Feature] = MappingProxyType({feature.name: feature for feature in _ALL})
"""All nineteen by name, in the order of table A1."""

ABSENT_WORDS = frozenset({"", "n/a", "na", "nan", "none", "null", "missing", "."})
"""What tables write where nothing was read, lower case."""


@dataclass(frozen=True, slots=True)
class SemanticFeatures:
    """What readers said of one nodule, in the words of :data:`FEATURES`; None where they said nothing.

    Args:
        longest_diameter_mm: Longest axial diameter.
        short_diameter_mm: Its perpendicular.
        margins: Whether each margin holds; a margin that was not judged has no entry. Several may hold.
        consistency: A class.
        shape: A class.
        conspicuity: A class.
        reticulation: Whether it is present; so for all below but the last.
        cyst_like_spaces: As above.
        necrosis: As above.
        eccentric_calcification: As above.
        cavitation: As above.
        bronchiectasis: As above.
        airway_cutoff: As above.
        vascular_convergence: As above.
        pleural_retraction: As above.
        pleural_attachment: As above.
        paracicatricial_emphysema: As above.
        septal_stretching: As above.
        suspicion: A class.
    """

    longest_diameter_mm: float | None = None
    short_diameter_mm: float | None = None
    margins: Mapping[str, bool] = field(default_factory=lambda: MappingProxyType({}))
    consistency: str | None = None
    shape: str | None = None
    conspicuity: str | None = None
    reticulation: bool | None = None
    cyst_like_spaces: bool | None = None
    necrosis: bool | None = None
    eccentric_calcification: bool | None = None
    cavitation: bool | None = None
    bronchiectasis: bool | None = None
    airway_cutoff: bool | None = None
    vascular_convergence: bool | None = None
    pleural_retraction: bool | None = None
    pleural_attachment: bool | None = None
    paracicatricial_emphysema: bool | None = None
    septal_stretching: bool | None = None
    suspicion: str | None = None

    def __post_init__(self) -> None:
        for feature in _ALL:
            value = getattr(self, feature.name)
            words = value if feature.kind == "several" else [value] if isinstance(value, str) else []
            unknown = [word for word in words if word not in feature.classes]
            if unknown:
                raise feature._unknown(unknown[0], got=unknown[0])

    @property
    def margin_words(self) -> tuple[str, ...]:
        """The margins that hold, in the order of the classes."""
        return tuple(name for name in FEATURES["margins"].classes if self.margins.get(name))

    def words(self, name: str) -> tuple[str, ...]:
        """The classes of a feature that hold; none where it is missing, and none for a length.

        Example:
            >>> SemanticFeatures(necrosis=False).words("necrosis")
            ('Absent',)
        """
        feature, value = FEATURES[name], getattr(self, name)
        if feature.kind == "several":
            return self.margin_words
        if feature.kind == "length" or value is None:
            return ()
        return (PRESENCE[bool(value)],) if feature.kind == "presence" else (value,)

    def as_truth(self) -> dict[str, float]:
        """All that was said as numbers, fit for ``Finding.truth``.

        Returns:
            A length under its name; ``feature=Class`` 1 or 0 for each class of a choice and of the margins that were
            judged; a presence 1 or 0; the suspicion 1 to 5. What is missing has no entry.
        """
        numbers: dict[str, float] = {}
        for feature in _ALL:
            value = getattr(self, feature.name)
            if feature.kind == "several":
                numbers |= {f"{feature.name}={word}": float(holds) for word, holds in value.items()}
            elif value is None:
                continue
            elif feature.kind == "choice":
                numbers |= {f"{feature.name}={word}": float(word == value) for word in feature.classes}
            elif feature.kind == "scale":
                numbers[feature.name] = float(feature.classes.index(value) + 1)
            else:
                numbers[feature.name] = float(value)
        return numbers

    @classmethod
    def from_truth(cls, truth: Mapping[str, float]) -> SemanticFeatures:
        """The record behind :meth:`as_truth`; other entries are passed over."""
        values: dict[str, object] = {}
        for feature in _ALL:
            judged = {w: truth[f"{feature.name}={w}"] for w in feature.classes if f"{feature.name}={w}" in truth}
            if feature.kind == "several":
                values[feature.name] = MappingProxyType({word: bool(number) for word, number in judged.items()})
            elif feature.kind == "choice":
                values[feature.name] = next((word for word, number in judged.items() if number), None)
            elif feature.name in truth:
                values[feature.name] = _from_number(feature, truth[feature.name])
        return cls(**values)  # type: ignore[arg-type]

    @classmethod
    def from_cells(cls, cells: Mapping[str, str]) -> SemanticFeatures:
        """Read the cells of a row by the columns of the published table; columns that are not there are missing.

        Several margins in one cell may be parted by commas, semicolons or ``and``. Where any margin is named, those
        that are not are taken as judged and not holding.

        Args:
            cells: Column name (any case) to cell.

        Raises:
            InputError: A word that is not in the vocabulary, or a length that is no number; names the column.
        """
        lowered = {name.lower(): cell.strip() for name, cell in cells.items()}
        values: dict[str, object] = {}
        for feature in _ALL:
            for column in feature.columns:
                cell = lowered.get(column, "")
                if cell.lower() in ABSENT_WORDS:
                    continue
                try:
                    values[feature.name] = _read(feature, cell, values.get(feature.name))
                except ValueError as error:
                    raise InputError(f"column {column}: {error}") from error
        return cls(**values)  # type: ignore[arg-type]


def _from_number(feature: Feature, number: float) -> object:
    if feature.kind == "scale":
        return feature.classes[int(number) - 1]
    return bool(number) if feature.kind == "presence" else float(number)


def _read(feature: Feature, cell: str, before: object) -> object:
    if feature.kind == "length":
        number = float(cell)
        if not 0 <= number < 1000:
            raise InputError(feature.title, got=cell, expected="a length in mm")
        return number
    if feature.kind == "several":
        held = {feature.word(part) for part in _parts(cell)}
        held |= {word for word, holds in before.items() if holds} if isinstance(before, Mapping) else set()
        return MappingProxyType({word: word in held for word in feature.classes})
    word = feature.word(cell)
    return word == "Present" if feature.kind == "presence" else word


def _parts(cell: str) -> Iterable[str]:
    """Several classes in one cell; a class that itself holds a slash stays whole."""
    text = cell.replace(";", ",").replace(" and ", ",")
    return [part.strip() for part in text.split(",") if part.strip().lower() not in ABSENT_WORDS]
