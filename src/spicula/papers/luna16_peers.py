"""Nodule detectors on LUNA16, as their authors' pages print them: sensitivity at seven rates and its mean (CPM).

They differ in what they were scored on: read the notes before comparing.
"""

from __future__ import annotations

from spicula.papers import Paper, sensitivity_row

_ONLY_MEAN: tuple[float, ...] = ()

PAPER = Paper(
    key="luna16_peers",
    title="Published LUNA16 scores of nodule detectors",
    authors=(),
    year=2017,
    numbers=(
        *sensitivity_row(
            "README of the detection tutorial", "MONAI detection, ten folds", "LUNA16",
            (0.835, 0.885, 0.931, 0.957, 0.974, 0.983, 0.988), cpm=0.936,
            note="its folds leave out the scans without nodules, and the score divides by all 888: optimistic",
        ),
        *sensitivity_row(
            "README", "nnDetection", "LUNA16", (0.812, 0.885, 0.927, 0.950, 0.969, 0.979, 0.985), cpm=0.930,
            note="a user who trained it again reports about 0.84",
        ),
        *sensitivity_row(
            "nnDetection's paper", "Liu et al. with false-positive reduction", "LUNA16", _ONLY_MEAN, cpm=0.952,
            note="as another paper cites it",
        ),
        *sensitivity_row(
            "nnDetection's paper", "Cao et al. with false-positive reduction", "LUNA16", _ONLY_MEAN, cpm=0.925,
            note="as another paper cites it",
        ),
        *sensitivity_row(
            "authors' message", "CPM-Net", "LUNA16", (0.723, 0.838, 0.887, 0.911, 0.928, 0.934, 0.948), cpm=0.881
        ),
        *sensitivity_row(
            "README", "CPMNetv2", "LUNA16", _ONLY_MEAN, cpm=0.956, note="users who ran it report 0.85"
        ),
        *sensitivity_row(
            "released detections", "DeepSEED", "LUNA16, subset 9", (0.687, 0.758, 0.815, 0.862, 0.902, 0.912, 0.912),
            cpm=0.835, note="one fold of ten; the last value repeats: its curve stops before 8 false positives a scan",
        ),
        *sensitivity_row(
            "pull request 292", "concept-to-clinic, ten folds", "LUNA16",
            (0.595, 0.670, 0.731, 0.793, 0.835, 0.868, 0.887), cpm=0.76, cpm_decimals=2,
        ),
        *sensitivity_row("abstract", "TCMNet", "LUNA16", _ONLY_MEAN, cpm=0.916),
    ),
    doi="10.1016/j.media.2017.06.015",
    absent=("intervals: none of these prints one",),
    caveats=(
        "a mean over the whole curve, a divisor of nodule scans only, or excluded findings counted as false positives "
        "each give another number from the same detections",
    ),
)  # fmt: skip
