"""LungNodule-SSM: DINOv2 features and a random forest on LUNA16 slices (arXiv 2505.15120).

The four numbers that its summary repeats; the tables of the full text are not at hand.
"""

from __future__ import annotations

from spicula.papers import Paper, Published

_NOTE = (
    "slices, not scans or nodules; split at random over slices, so that one patient is on both sides; the boxes of the "
    "training are made by the features themselves"
)
_MODEL = "DINOv2 ViT-L/14 [CLS] + random forest"

PAPER = Paper(
    key="noreen2025",
    title="Lung Nodule-SSM: Self-Supervised Lung Nodule Detection and Classification in Thoracic CT Images",
    authors=("Muniba Noreen", "Furqan Shaukat"),
    year=2025,
    numbers=tuple(
        Published(
            "Key results", _MODEL, metric, value, "LUNA16", "random 15 % of slices", "slice with a nodule", decimals=4,
            note=_NOTE,
        )
        for metric, value in [
            ("accuracy", 0.9837), ("f1", 0.9663), ("precision", 0.9964), ("recall", 0.9348), ("auroc", 0.9809),
        ]
    ),
    arxiv="2505.15120",
    code_licence="MIT in its README, no licence file",
    absent=(
        "the tables and the section on losses of the full text",
        "how many slices are in the test part, and how many of these hold a nodule",
    ),
    caveats=(
        "not a detection score: LUNA16 is scored by sensitivity at given false positives a scan",
        "the features of the released code are the frozen public ones; no self-supervised training is in it",
    ),
)  # fmt: skip
