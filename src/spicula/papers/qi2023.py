"""Lesion search: SimCLR features with Frangi filtering and GeM pooling on DeepLesion (arXiv 2311.11014)."""

from __future__ import annotations

from spicula.papers import Paper, Published

_MODEL = "SimCLR + Frangi + GeM"
_NOT_AP = "by the released code this is the mean of precision at 1 to 10, not average precision"
_QUERY_IN = f"{_NOT_AP}, and the query itself is among its candidates"

PAPER = Paper(
    key="qi2023",
    title="Lesion Search with Self-supervised Learning",
    authors=("Kristin Qi", "Jiali Cheng", "Daniel Haehn"),
    year=2023,
    numbers=(
        *(
            Published("Key results", _MODEL, metric, value, "DeepLesion", "test", "lesion type", decimals=4)
            for metric, value in [("accuracy", 0.8073), ("f1", 0.7783)]
        ),
        Published(
            "Key results", "SimCLR", "map@10", 0.729, "DeepLesion", "test", "lesion type, all patients", note=_QUERY_IN
        ),
        Published(
            "Key results", "SimCLR", "map@10", 0.713, "DeepLesion", "test", "lesion type, same patient", note=_QUERY_IN
        ),
        Published(
            "Key results", "SimCLR", "map@10", 0.465, "DeepLesion", "test", "lesion type, other patients", note=_NOT_AP
        ),
    ),
    arxiv="2311.11014",
    venue="ICLR 2023 Tiny Papers",
    code="https://github.com/openhcimed/flask_search",
    code_licence="Apache-2.0",
    absent=(
        "the VAE baseline's numbers, and those without Frangi filtering or GeM pooling",
        "how many lesions the accuracy rests on",
    ),
    caveats=(
        "the released code's filter has other parameters than the paper, its GeM pooling is commented out and its "
        "margin is 1, not 0.8",
        "precision at k is divided by k also where a patient has fewer lesions",
    ),
)
