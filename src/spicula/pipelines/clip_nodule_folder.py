"""What lies in an experiment folder of CLIP_nodule: arguments, folds, calibrators; nothing in it is run.

``args.txt`` is the ``repr`` of an argparse namespace, ``fold_k/best_{both,clip,pred}.pt`` hold the weights,
``fold_k/cal_k.pkl`` a pickled calibrator, which is refused: :data:`CONVERT` makes ``cal_k.json`` of it, where it was
made.
"""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from spicula.core.errors import InputError, SpiculaWarning
from spicula.metrics.calibration import BetaCalibration

Best: TypeAlias = Literal["both", "clip", "pred"]
"""Which loss the weights were the best of: the sum, the contrastive one, the classifiers'."""

CONVERT = """\
python -c "import json, math, pathlib, pickle, sys
for path in pathlib.Path(sys.argv[1]).glob('fold_*/cal_*.pkl'):
    k = pickle.load(open(path, 'rb')); k = getattr(k, 'calibrator_', k); a, b = map(float, k.map_[:2])
    c = float(k.lr_.intercept_[0]) if k.lr_.fit_intercept else (a - b) * math.log(2)
    path.with_suffix('.json').write_text(json.dumps({'a': a, 'b': b, 'c': c}))" CKPT_DIR"""
"""To be run where betacal is installed and the pickles are trusted."""

_FOLD = re.compile(r"fold_(\d+)")
_DOCUMENTED = "docs/how-to/import-clip.md has the command that converts it, to be run where it was made"


@dataclass(frozen=True, slots=True)
class Experiment:
    """An experiment folder.

    Args:
        folder: The folder.
        arguments: Of the training; values that are no plain data are kept as text.
        checkpoints: File of each fold, by its number.
        calibrations: Of each of these folds; empty where there are none.
    """

    folder: Path
    arguments: Mapping[str, Any]
    checkpoints: Mapping[int, Path]
    calibrations: Mapping[int, BetaCalibration]

    @property
    def alpha(self) -> float | None:
        """The adapters' scale factor; None if the arguments do not say."""
        for name in ("alpha", "lora_alpha"):
            value = self.arguments.get(name)
            if isinstance(value, int | float) and not isinstance(value, bool):
                return float(value)
        return None


def read_experiment(folder: Path, *, best: Best = "both", folds: Sequence[int] | None = None) -> Experiment:
    """Look through an experiment folder.

    Args:
        folder: ``experiment_YYYYMMDD_HHMMSS``.
        best: Which of a fold's three files.
        folds: Numbers of the folds wanted; all of the experiment if None.

    Returns:
        The experiment; its weights are not read yet.

    Raises:
        InputError: It is no such folder, a fold or file is missing, a calibrator is pickled or damaged, or only some
            folds have one.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}", got="no folder", expected="an experiment folder with fold_0, fold_1, ...")
    arguments = read_arguments(folder / "args.txt")
    there = sorted(
        int(match[1]) for path in folder.iterdir() if (match := _FOLD.fullmatch(path.name)) and path.is_dir()
    )
    wanted = _wanted_folds(folder, arguments, there, folds)
    checkpoints = {fold: _checkpoint(folder / f"fold_{fold}", best) for fold in wanted}
    calibrations = {fold: read_calibration(folder / f"fold_{fold}", fold) for fold in wanted}
    found = {fold: calibration for fold, calibration in calibrations.items() if calibration is not None}
    if found and len(found) < len(wanted):
        lacking = ", ".join(str(folder / f"fold_{fold}" / f"cal_{fold}.json") for fold in wanted if fold not in found)
        raise InputError("calibrators", got=f"none at {lacking}", expected="one for every fold, or none at all")
    return Experiment(folder, arguments, checkpoints, found)


def _wanted_folds(
    folder: Path, arguments: Mapping[str, Any], there: Sequence[int], folds: Sequence[int] | None
) -> list[int]:
    count = arguments.get("n_splits")
    count = count if isinstance(count, int) and not isinstance(count, bool) else None
    if folds is not None:
        wanted = sorted(set(folds))
    else:
        wanted = list(range(count if count is not None else max(there, default=-1) + 1))
    missing = [fold for fold in wanted if fold not in there]
    further = [fold for fold in there if folds is None and fold not in wanted]
    if not wanted or missing or further:
        expected = f"folds {', '.join(map(str, wanted))}" if wanted else "fold_0, fold_1, ..."
        if count is not None and folds is None:
            expected += f" (n_splits={count} in args.txt)"
        raise InputError(
            f"{folder}", got=f"folds {', '.join(map(str, there))}" if there else "no fold", expected=expected,
            hint="--fold K, once for each, imports some folds only",
        )  # fmt: skip
    return wanted


def _checkpoint(fold: Path, best: Best) -> Path:
    path = fold / f"best_{best}.pt"
    if not path.is_file():
        there = ", ".join(sorted(file.name for file in fold.glob("*.pt"))) or "no .pt file"
        raise InputError(
            f"{path}", got=there, expected=path.name, hint="--best both, clip or pred says which file is taken"
        )
    return path


def read_arguments(path: Path) -> dict[str, Any]:
    """Read the ``repr`` of an argparse namespace as text, without running it.

    Args:
        path: ``args.txt``; where there is none a warning is given.

    Returns:
        The arguments; a value that is no plain data, such as ``PosixPath('x')``, stays as it is written.

    Raises:
        InputError: The file is something else.
    """
    try:
        text = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        warnings.warn(f"{path} is missing: what the training was told is not known", SpiculaWarning, stacklevel=2)
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}", got=str(error), expected="the text of a Namespace") from error
    try:
        call = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise InputError(f"{path}", got=f"{text[:60]!r} ({error})", expected="Namespace(name=value, ...)") from error
    named = isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "Namespace"
    if not isinstance(call, ast.Call) or not named or call.args:
        raise InputError(f"{path}", got=repr(text[:60]), expected="Namespace(name=value, ...)")
    found: dict[str, Any] = {}
    for keyword in call.keywords:
        value = _plain(keyword.value)
        if keyword.arg is not None:
            found[keyword.arg] = value
        elif isinstance(value, dict):  # names that are no identifiers are written **{'a-b': 1}
            found |= {str(name): each for name, each in value.items()}
    return found


def _plain(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return ast.unparse(node)


def read_calibration(fold: Path, number: int) -> BetaCalibration | None:
    """The calibrator of one fold.

    Args:
        fold: Its folder.
        number: Of the fold.

    Returns:
        That of ``cal_<number>.json``; None where there is neither this nor a pickled one.

    Raises:
        InputError: There is a pickled one only, or the JSON file does not hold a, b and c of a rising map.
    """
    path = fold / f"cal_{number}.json"
    pickled = path.with_suffix(".pkl")
    if not path.is_file():
        if pickled.exists():
            raise InputError(
                f"{pickled}", got="a pickled calibrator, which could run any code when it is read",
                expected=f'{path.name} with {{"a": ..., "b": ..., "c": ...}}', hint=_DOCUMENTED,
            )  # fmt: skip
        return None
    try:
        return BetaCalibration.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:  # InputError is a ValueError too
        raise InputError(f"{path}: {error}", hint=_DOCUMENTED) from error
