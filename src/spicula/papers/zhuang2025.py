"""CLIP_nodule: malignancy from nodule images guided by the readers' words (arXiv 2504.21344, version 3).

Typed from the text of the paper. Its first-line table cells (means with standard deviations of table 5, and all
cells of tables 2 and A3) did not survive into that text; what section 4 repeats of them is here.
"""

from __future__ import annotations

from spicula.papers import Paper, Published, recall_table, share_table

CLIP, DEEPLUNGIPN, SYBIL, VENKADESH = "CLIP", "DeepLungIPN", "Sybil", "Venkadesh et al."
SEMANTIC = "S (logistic regression, L1, semantic features)"
CANCER = "lung cancer within one year"
TEST = "test, 20 % of cases held out"

_COHORTS = {"NLST": (TEST, 188, 43), "LUNGx": ("", 70, 35), "DLCS": ("", 856, 94), "UCLA": ("", 51, 28)}
_COHORTS_A4 = {"NLST": (TEST, 186, 43), "LUNGx": ("", 69, 35), "DLCS": ("", 838, 94), "UCLA": ("", 51, 28)}
_FAILED = "cases that DeepLungIPN failed on are missing; table 3 does not say so in its heading"


def _patient(
    model: str, dataset: str, metric: str, value: float, low: float | None = None, high: float | None = None
) -> Published:
    split, n, n_positive = _COHORTS[dataset]
    return Published(
        "Section 4.1 (of table 2)", model, metric, value, dataset, split, CANCER, low=low, high=high,
        interval="bootstrap" if low is not None else "", n=n, n_positive=n_positive,
        note=_FAILED if model == DEEPLUNGIPN else "",
    )  # fmt: skip


TABLE_1 = (
    Published("Table 1", "", "cases", 938, "NLST", decimals=0),
    Published("Table 1", "", "share", 0.23, "NLST", target="Cases = positive", n=938, decimals=2),
    Published("Table 1", "", "nodules", 1261, "NLST", decimals=0, note="1,246 in the abstract that PubMed has"),
    Published("Table 1", "", "cases", 1018, "LIDC", decimals=0),
    Published("Table 1", "", "share", 0.09, "LIDC", target="Cases = positive", n=1018, decimals=2),
    Published("Table 1", "", "nodules", 2625, "LIDC", decimals=0),
    Published("Table 1", "", "cases", 70, "LUNGx", decimals=0),
    Published("Table 1", "", "share", 0.50, "LUNGx", target="Cases = positive", n=70, n_positive=35, decimals=2),
    Published("Table 1", "", "nodules", 83, "LUNGx", decimals=0),
    Published("Table 1", "", "cases", 51, "UCLA", decimals=0),
    Published("Table 1", "", "share", 0.55, "UCLA", target="Cases = positive", n=51, n_positive=28, decimals=2),
    Published("Table 1", "", "nodules", 52, "UCLA", decimals=0),
    Published("Table 1", "", "cases", 856, "DLCS", decimals=0),
    Published("Table 1", "", "share", 0.11, "DLCS", target="Cases = positive", n=856, n_positive=94, decimals=2),
    Published("Table 1", "", "nodules", 1388, "DLCS", decimals=0),
)

TABLE_2_IN_TEXT = (
    _patient(DEEPLUNGIPN, "NLST", "auroc", 0.862),
    _patient(DEEPLUNGIPN, "NLST", "auprc", 0.679),
    _patient(CLIP, "NLST", "auroc", 0.901, 0.843, 0.950),
    _patient(CLIP, "NLST", "auprc", 0.776, 0.642, 0.880),
    _patient(CLIP, "LUNGx", "auroc", 0.771, 0.652, 0.880),
    _patient(CLIP, "LUNGx", "auprc", 0.813, 0.679, 0.914),
    _patient(CLIP, "UCLA", "auroc", 0.778, 0.643, 0.898),
    _patient(CLIP, "UCLA", "auprc", 0.823, 0.661, 0.935),
    _patient(DEEPLUNGIPN, "UCLA", "auroc", 0.624, 0.458, 0.779),
    _patient(DEEPLUNGIPN, "UCLA", "auprc", 0.601, 0.435, 0.821),
    _patient(CLIP, "DLCS", "auroc", 0.861, 0.820, 0.897),
    _patient(CLIP, "DLCS", "auprc", 0.489, 0.382, 0.595),
    _patient(DEEPLUNGIPN, "DLCS", "auroc", 0.851, 0.803, 0.894),
    _patient(DEEPLUNGIPN, "DLCS", "auprc", 0.543, 0.435, 0.645),
    Published("Section 4.1", CLIP, "auroc", 0.769, "LUNGx", "nodules", CANCER, n=83),
    Published(
        "Section 4.1", "machine-learning entries of the LUNGx challenge, mean", "auroc", 0.620, "LUNGx", "nodules",
        CANCER, low=0.500, high=0.680, interval="range", n=83,
    ),
    Published(
        "Section 4.1", "six radiologists of the LUNGx challenge", "auroc", None, "LUNGx", "nodules", CANCER,
        low=0.700, high=0.850, interval="range",
    ),
)  # fmt: skip

TABLE_3 = recall_table(
    "Table 3",
    _COHORTS,
    [
        ("NLST", DEEPLUNGIPN, (0.070, 0.667, 0.148, 0.588, 0.190, 0.486, 0.430, 0.386)),
        ("NLST", CLIP, (0.034, 0.812, 0.090, 0.638, 0.145, 0.618, 0.338, 0.406)),
        ("LUNGx", SYBIL, (0.229, 0.724, 0.543, 0.568, 0.743, 0.519, 0.914, 0.500)),
        ("LUNGx", VENKADESH, (0.371, 0.618, 0.571, 0.568, 0.600, 0.571, 0.771, 0.542)),
        ("LUNGx", DEEPLUNGIPN, (0.206, 0.724, 0.265, 0.706, 0.471, 0.596, 0.882, 0.492)),
        ("LUNGx", CLIP, (0.086, 0.875, 0.171, 0.774, 0.486, 0.560, 0.743, 0.542)),
        ("DLCS", SYBIL, (0.136, 0.354, 0.227, 0.273, 0.444, 0.187, 0.580, 0.153)),
        ("DLCS", DEEPLUNGIPN, (0.097, 0.424, 0.145, 0.361, 0.224, 0.301, 0.477, 0.193)),
        ("DLCS", CLIP, (0.110, 0.400, 0.154, 0.353, 0.234, 0.295, 0.379, 0.203)),
        ("UCLA", SYBIL, (0.217, 0.773, 0.391, 0.690, 0.609, 0.622, 0.652, 0.634)),
        ("UCLA", DEEPLUNGIPN, (0.304, 0.586, 0.522, 0.588, 0.609, 0.611, 0.696, 0.581)),
        ("UCLA", CLIP, (0.217, 0.739, 0.261, 0.769, 0.261, 0.733, 0.565, 0.568)),
    ],
    target=CANCER,
)

TABLE_A4 = recall_table(
    "Table A4",
    _COHORTS_A4,
    [
        ("NLST", DEEPLUNGIPN, (0.070, 0.667, 0.148, 0.588, 0.190, 0.486, 0.430, 0.386)),
        ("NLST", CLIP, (0.035, 0.812, 0.092, 0.638, 0.141, 0.630, 0.331, 0.419)),
        ("LUNGx", SYBIL, (0.235, 0.724, 0.294, 0.615, 0.735, 0.483, 0.912, 0.500)),
        ("LUNGx", VENKADESH, (0.382, 0.600, 0.441, 0.571, 0.618, 0.560, 0.676, 0.542)),
        ("LUNGx", DEEPLUNGIPN, (0.206, 0.724, 0.265, 0.706, 0.471, 0.596, 0.882, 0.492)),
        ("LUNGx", CLIP, (0.088, 0.875, 0.176, 0.774, 0.500, 0.560, 0.765, 0.542)),
        ("DLCS", SYBIL, (0.132, 0.368, 0.223, 0.281, 0.438, 0.193, 0.578, 0.157)),
        ("DLCS", DEEPLUNGIPN, (0.097, 0.424, 0.145, 0.361, 0.224, 0.301, 0.477, 0.193)),
        ("DLCS", CLIP, (0.108, 0.412, 0.151, 0.363, 0.228, 0.305, 0.378, 0.208)),
        ("UCLA", SYBIL, (0.217, 0.773, 0.391, 0.690, 0.609, 0.622, 0.652, 0.634)),
        ("UCLA", DEEPLUNGIPN, (0.304, 0.586, 0.522, 0.588, 0.609, 0.611, 0.696, 0.581)),
        ("UCLA", CLIP, (0.217, 0.739, 0.261, 0.769, 0.261, 0.733, 0.565, 0.568)),
    ],
    target=CANCER,
)

_MARGINS = "Nodule Margin"
TABLE_4_SHARES = share_table(
    "Table 4",
    "NLST",
    "test nodules",
    None,
    {
        _MARGINS: {"Smooth": 66.9, "Lobulated": 22.3, "Spiculated": 24.3, "Ill-defined": 19.1, "Notched": 1.2,
                   "N/A": 0.8},
        "Nodule Consistency": {"Peri-cystic": 2.0, "Solid": 72.5, "Pure ground glass": 9.5, "Semiconsolidation": 8.0,
                               "Part-solid": 8.0},
        "Nodule Shape": {"Irregular": 31.5, "Ovoid": 35.5, "Polygonal": 13.5, "Round": 18.7, "N/A": 0.8},
        "Nodule Margin Conspicuity": {"Well marginated": 82.9, "Poorly marginated": 15.9, "N/A": 1.2},
        "Nodule Reticulation": {"Present": 87.6, "Absent": 12.4},
        "Cyst-like Spaces": {"Present": 13.5, "Absent": 86.1, "N/A": 0.4},
        "Necrosis": {"Present": 0.4, "Absent": 99.6},
        "Eccentric Calcification": {"Present": 3.2, "Absent": 96.4, "N/A": 0.4},
        "Cavitation": {"Present": 0.4, "Absent": 99.6},
        "Intra-nodular Bronchiectasis": {"Present": 2.8, "Absent": 97.2},
        "Airway Cutoff": {"Present": 1.6, "Absent": 26.7, "N/A": 71.7},
        "Vascular Convergence": {"Present": 11.2, "Absent": 88.4, "N/A": 0.4},
        "Pleural Retraction": {"Present": 20.3, "Absent": 79.7},
        "Pleural Attachment": {"Present": 52.6, "Absent": 47.4},
        "Paracicatricial Emphysema": {"Present": 12.0, "Absent": 87.6, "N/A": 0.4},
        "Septal Stretching": {"Present": 68.9, "Absent": 30.3, "N/A": 0.8},
    },
)  # fmt: skip

TABLE_4_AUROC = tuple(
    Published("Table 4", f"{CLIP}, zero-shot", "auroc", value, "NLST", "test nodules", feature)
    for feature, value in {
        _MARGINS: 0.807, "Nodule Consistency": 0.812, "Nodule Shape": 0.670, "Nodule Margin Conspicuity": 0.859,
        "Nodule Reticulation": 0.411, "Cyst-like Spaces": 0.731, "Necrosis": 0.112, "Eccentric Calcification": 0.794,
        "Cavitation": 0.620, "Intra-nodular Bronchiectasis": 0.425, "Airway Cutoff": 0.387,
        "Vascular Convergence": 0.747, "Pleural Retraction": 0.689, "Pleural Attachment": 0.840,
        "Paracicatricial Emphysema": 0.756, "Septal Stretching": 0.670,
    }.items()
)  # fmt: skip

_TABLE_5_INTERVALS = {
    "FT (all weights tuned)": ((0.793, 0.825), (0.463, 0.603), (0.600, 0.712), (0.555, 0.722), (0.778, 0.818),
                               (0.302, 0.353), (0.523, 0.629), (0.529, 0.675)),
    "PT (projections tuned)": ((0.814, 0.863), (0.599, 0.670), (0.710, 0.755), (0.684, 0.771), (0.832, 0.839),
                               (0.410, 0.436), (0.698, 0.746), (0.743, 0.762)),
    "LoRA": ((0.876, 0.902), (0.733, 0.781), (0.745, 0.782), (0.778, 0.825), (0.838, 0.866), (0.404, 0.517),
             (0.702, 0.817), (0.756, 0.854)),
    "V (vision encoder alone)": ((0.768, 0.857), (0.523, 0.651), (0.635, 0.735), (0.671, 0.765), (0.778, 0.817),
                                 (0.335, 0.436), (0.621, 0.750), (0.657, 0.760)),
    CLIP: ((0.876, 0.902), (0.733, 0.781), (0.745, 0.782), (0.778, 0.825), (0.838, 0.866), (0.404, 0.517),
           (0.702, 0.817), (0.756, 0.854)),
}  # fmt: skip

_OVER_FOLDS = "the interval is over five models on one test set: how much patients vary is not in it"
TABLE_5 = (
    Published(
        "Table 5, section 4.3", SEMANTIC, "auroc", 0.888, "NLST", TEST, CANCER, low=0.886, high=0.890,
        interval="t over folds", n=188, n_positive=43, folds=5, note=_OVER_FOLDS,
    ),
    Published(
        "Table 5, section 4.3", SEMANTIC, "auprc", 0.780, "NLST", TEST, CANCER, low=0.772, high=0.795,
        interval="t over folds", n=188, n_positive=43, folds=5, note=_OVER_FOLDS,
    ),
    *(
        Published(
            "Table 5", model, metric, None, dataset, _COHORTS[dataset][0], CANCER, low=low, high=high,
            interval="t over folds", n=_COHORTS[dataset][1], n_positive=_COHORTS[dataset][2], folds=5,
            note=_OVER_FOLDS,
        )
        for model, intervals in _TABLE_5_INTERVALS.items()
        for (dataset, metric), (low, high) in zip(
            [(dataset, metric) for dataset in _COHORTS for metric in ("auroc", "auprc")], intervals, strict=True
        )
    ),
)  # fmt: skip

TABLE_A1 = share_table(
    "Table A1",
    "NLST",
    "all nodules",
    1261,
    {
        "Longest Axial Diameter": {"3.8-10 mm": 60.6, "10-20": 31.2, "20-30": 7.1, "30-40": 0.7, "40-50": 0.2,
                                   "50-59.3": 0.2},
        "Short Diameter": {"2.0-10 mm": 79.4, "10-20": 18.4, "20-30": 1.6, "30-40": 0.5, "40-48.8": 0.1},
        _MARGINS: {"Smooth": 65.9, "Lobulated": 23.2, "Spiculated": 24.7, "Ill-defined": 20.6, "Notched": 0.2,
                   "N/A": 2.0},
        "Nodule Consistency": {"Peri-cystic": 1.9, "Solid": 70.0, "Pure ground glass": 9.4, "Semiconsolidation": 8.0,
                               "Part-solid": 10.6, "N/A": 0.1},
        "Nodule Shape": {"Irregular": 37.3, "Ovoid": 31.6, "Polygonal": 11.3, "Round": 18.9, "N/A": 0.9},
        "Nodule Margin Conspicuity": {"Well marginated": 80.8, "Poorly marginated": 18.1, "N/A": 1.1},
        "Nodule Reticulation": {"Present": 87.1, "Absent": 12.5, "N/A": 0.4},
        "Cyst-like Spaces": {"Present": 13.8, "Absent": 85.6, "N/A": 0.6},
        "Necrosis": {"Present": 0.4, "Absent": 99.6},
        "Eccentric Calcification": {"Present": 3.2, "Absent": 96.4, "N/A": 0.4},
        "Cavitation": {"Present": 0.4, "Absent": 99.6},
        "Intra-nodular Bronchiectasis": {"Present": 3.0, "Absent": 96.8, "N/A": 0.2},
        "Airway Cutoff": {"Present": 2.5, "Absent": 25.7, "N/A": 71.8},
        "Vascular Convergence": {"Present": 12.8, "Absent": 86.8, "N/A": 0.4},
        "Pleural Retraction": {"Present": 21.7, "Absent": 78.1, "N/A": 0.2},
        "Pleural Attachment": {"Present": 51.5, "Absent": 48.2, "N/A": 0.3},
        "Paracicatricial Emphysema": {"Present": 11.1, "Absent": 88.5, "N/A": 0.4},
        "Septal Stretching": {"Present": 67.3, "Absent": 32.5, "N/A": 0.2},
        "Level of Suspicion of Lung Cancer": {"Very Low": 30.1, "Moderately Low": 22.6, "Intermediate": 20.3,
                                              "Moderately High": 12.8, "High": 13.4, "N/A": 0.8},
    },
)  # fmt: skip

_TESTS_A5 = [("NLST", "auroc"), ("NLST", "auprc"), ("LUNGx", "auroc"), ("LUNGx", "auprc"), ("DLCS", "auroc"),
             ("DLCS", "auprc"), ("UCLA", "auroc"), ("UCLA", "auprc")]  # fmt: skip
TABLE_A5 = tuple(
    Published(
        "Table A5", pair, "p_value", value, dataset, _COHORTS[dataset][0], metric, folds=5,
        note="Nemenyi after Friedman" if three or dataset == "NLST" else "Wilcoxon signed-rank",
    )
    for pair, three, values in [
        ("FT vs PT", True, (0.609, 0.254, 0.139, 0.254, 0.139, 0.139, 0.139, 0.139)),
        ("FT vs LoRA", True, (0.012, 0.004, 0.012, 0.004, 0.012, 0.012, 0.012, 0.012)),
        ("PT vs LoRA", True, (0.139, 0.254, 0.609, 0.254, 0.609, 0.609, 0.609, 0.609)),
        ("S vs V", False, (0.069, 0.012)),
        ("S vs CLIP", False, (0.946, 0.609)),
        ("V vs CLIP", False, (0.031, 0.139, 0.063, 0.063, 0.063, 0.125, 0.063, 0.063)),
    ]
    for (dataset, metric), value in zip(_TESTS_A5, values, strict=False)
)  # fmt: skip

PAPER = Paper(
    key="zhuang2025",
    title="Vision-Language Model-Based Semantic-Guided Imaging Biomarker for Lung Nodule Malignancy Prediction",
    authors=(
        "Luoting Zhuang", "Seyed Mohammad Hossein Tabatabaei", "Ramin Salehi-Rad", "Linh M. Tran", "Denise R. Aberle",
        "Ashley E. Prosper", "William Hsu",
    ),
    year=2025,
    numbers=(
        *TABLE_1, *TABLE_2_IN_TEXT, *TABLE_3, *TABLE_4_AUROC, *TABLE_4_SHARES, *TABLE_5, *TABLE_A1, *TABLE_A4,
        *TABLE_A5,
    ),
    arxiv="2504.21344",
    code="https://github.com/luotingzhuang/CLIP_nodule",
    code_licence="AGPL-3.0",
    absent=(
        "Table 2: the text has none of its cells; those that section 4.1 repeats are here (no Sybil, no Venkadesh)",
        "Table 5: mean and standard deviation of each cell; the intervals are here, and S from section 4.3",
        "Table A2: names of classes, no numbers; the thresholds of its middle column are not in the text",
        "Table A3: the text has none of its cells",
    ),
    caveats=(
        "one-year cancer diagnosis by patient (maximum over nodules), not a rating by readers",
        "the code's report generator gives every nodule the first row's text, and its evaluation merges the low-rank "
        "weights of fold 0 twice: what the released code gives need not be what the paper printed",
    ),
)  # fmt: skip
