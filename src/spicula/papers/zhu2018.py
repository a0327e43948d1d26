"""DeepLung: dual-path networks that find and classify nodules (arXiv 1801.09555).

The detector's own detections are public, and the official LUNA16 script scores them as below.
"""

from __future__ import annotations

from spicula.papers import Paper, Published, sensitivity_row

PAPER = Paper(
    key="zhu2018",
    title="DeepLung: Deep 3D Dual Path Nets for Automated Pulmonary Nodule Detection and Classification",
    authors=("Wentao Zhu", "Chaochun Liu", "Wei Fan", "Xiaohui Xie"),
    year=2018,
    numbers=(
        *sensitivity_row(
            "LUNA16 result",
            "DeepLung (dual-path network)",
            "LUNA16",
            (0.692, 0.769, 0.824, 0.865, 0.893, 0.917, 0.933),
            cpm=0.842,
            note="the released detections give the same under the official script",
        ),
        Published(
            "LUNA16 result", "DeepLung (residual network)", "cpm", 0.834, "LUNA16", target="nodules found",
            note="its detections are not at hand",
        ),
    ),
    arxiv="1801.09555",
    venue="WACV 2018",
    code="https://github.com/wentaozhu/DeepLung",
    code_licence="Apache-2.0",
    absent=("everything on classification",),
    caveats=(
        "counting the excluded findings as false positives gives 0.742: another list than the official one has been "
        "used by readers of its code",
    ),
)  # fmt: skip
