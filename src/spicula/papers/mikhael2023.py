"""Sybil: the risk of lung cancer over six years from one low-dose chest CT (doi:10.1200/JCO.22.01345)."""

from __future__ import annotations

from spicula.papers import Paper, Published

_YEAR = "lung cancer within one year"
_SIX = "lung cancer within six years"

PAPER = Paper(
    key="mikhael2023",
    title="Sybil: A Validated Deep Learning Model to Predict Future Lung Cancer Risk From a Single Low-Dose Chest "
    "Computed Tomography",
    authors=("Peter G. Mikhael", "Jeremy Wohlwend", "Adam Yala", "and others"),
    year=2023,
    numbers=(
        Published(
            "Abstract", "Sybil", "auroc", 0.92, "NLST", "test", _YEAR, low=0.88, high=0.95, interval="bootstrap",
            decimals=2,
        ),
        Published("Abstract", "Sybil", "auroc", 0.86, "MGH", "", _YEAR, decimals=2),
        Published("Abstract", "Sybil", "auroc", 0.94, "CGMH", "", _YEAR, decimals=2),
        Published("Abstract", "Sybil", "c_index", 0.75, "NLST", "test", _SIX, decimals=2),
        Published("Abstract", "Sybil", "c_index", 0.81, "MGH", "", _SIX, decimals=2),
        Published("Abstract", "Sybil", "c_index", 0.80, "CGMH", "", _SIX, decimals=2),
    ),
    doi="10.1200/JCO.22.01345",
    venue="Journal of Clinical Oncology 41 (12)",
    code="https://github.com/reginabarzilaygroup/Sybil",
    code_licence="MIT",
    absent=("the intervals on MGH and CGMH, and all tables",),
    caveats=("scores a whole scan, not a nodule",),
)  # fmt: skip
