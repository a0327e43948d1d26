"""AI in Lung Health: one detector and one classifier across four data sets (arXiv 2405.04605).

What a detector that scores 0.94 on the data it was trained on scores elsewhere.
"""

from __future__ import annotations

from spicula.papers import Paper, Published

_ON_LUNA16, _ON_DLCS = "RetinaNet trained on LUNA16", "RetinaNet trained on DLCS"

PAPER = Paper(
    key="tushar2024",
    title="AI in Lung Health: Benchmarking Detection and Diagnostic Models Across Multiple CT Scan Datasets",
    authors=("Fakrul Islam Tushar", "and others"),
    year=2024,
    numbers=(
        *(
            Published("Results", model, "cpm", value, dataset, target="nodules found", decimals=2)
            for model, dataset, value in [
                (_ON_LUNA16, "DLCS", 0.45), (_ON_LUNA16, "NLST-3D", 0.49), (_ON_DLCS, "DLCS", 0.63),
                (_ON_DLCS, "NLST-3D", 0.58),
            ]
        ),
        *(
            Published("Results", model, "sensitivity", value, dataset, target="nodules found", at=2.0, decimals=2)
            for model, dataset, value in [
                (_ON_LUNA16, "DLCS", 0.62), (_ON_LUNA16, "NLST-3D", 0.64), (_ON_DLCS, "DLCS", 0.82),
                (_ON_DLCS, "NLST-3D", 0.72),
            ]
        ),
        *(
            Published("Results", "ResNet50-SWS", "auroc", value, dataset, target="malignancy of a nodule", decimals=2)
            for dataset, value in [("DLCS", 0.71), ("LUNA16", 0.90), ("NLST-3D", 0.81), ("LUNA25", 0.80)]
        ),
    ),
    arxiv="2405.04605",
    code="https://github.com/fitushar/AI-in-Lung-Health-Benchmarking-Detection-and-Diagnostic-Models-Across-Multiple-CT-Scan-Datasets",
    absent=("the intervals of its classifiers",),
    caveats=("LUNA16's label of malignancy is a rating by readers, the others' a diagnosis",),
)  # fmt: skip
