"""Write the README's results from the files under benchmarks/results; --check only compares."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from spicula.pipelines.search_arms import HEAD_ALONE, MAIN, ON_PAIRS, WITH_HEAD

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
BEGIN, END = "<!-- results -->\n", "<!-- /results -->\n"

TARGETS = {
    "texture_solid": 0.90,
    "spiculation_present": 0.88,
    "lobulation_present": 0.81,
    "margin_sharp": 0.86,
    "sphericity_round": 0.73,
    "calcification_present": 0.985,
    "subtlety_obvious": 0.86,
}
"""What was asked for of each trait (AUROC)."""


def read(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def span(interval: dict[str, float]) -> str:
    return f"{interval['value']:.3f} ({interval['low']:.3f} to {interval['high']:.3f})"


def rows() -> list[tuple[str, str, str, str]]:
    return [
        *risk_rows(),
        *semantic_rows(),
        *ssm_rows(),
        *search_rows(),
        *on_device_rows(),
        *outline_rows(),
        *detection_rows(),
        *evaluation_rows(),
        *speed_rows(),
        *install_rows(),
        *workstation_rows(),
    ]


def search_rows() -> list[tuple[str, str, str, str]]:
    """Lesion search: what is found, how fast, in how large an index."""
    table: list[tuple[str, str, str, str]] = []
    if (RESULTS / "retrieval.json").is_file():
        table += retrieval_rows(read("retrieval")["patients_apart"]["embeddings"])
    if (RESULTS / "search.json").is_file():
        found = read("search")["point_to_ten_matches"]
        text = f"{1000 * found['median_seconds']:.0f} ms, slowest {1000 * found['slowest_seconds']:.0f} ms"
        table.append(("Similar cases: from a CT and a point to ten matches, two cores", text, "300 ms", "search"))
    if (RESULTS / "frangi.json").is_file():
        found = read("frangi")
        ratios = [found[size]["times_faster_than"]["scikit_image"]["float32"] for size in ("cube", "slice")]
        text = f"{ratios[0]:.0f} and {ratios[1]:.0f} times faster"
        table.append(
            ("Frangi's filter, three scales, 64-cube and 512-square, against scikit-image", text, "3 times", "frangi")
        )
    if (RESULTS / "index.json").is_file():
        found, effort = read("index")["clustered"], str(read("index")["defaults"]["faiss-hnsw"])
        best = found["faiss-hnsw"][effort]
        opened = found["faiss-hnsw"]["seconds to open"]
        text = f"{best['recall at 10']:.3f}, {best['ms a query']:.2f} ms, opened in {opened:.2f} s"
        what = f"HNSW over {found['number']:,} vectors of 256 numbers: recall at 10, a query on one core, opening"
        table.append((what, text, "0.95, 1 ms, 1 s", "index"))
    return table


def retrieval_rows(judged: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """Precision at 10 for malignancy across patients, and what is tuned against the VAE in every scope."""
    across = {name: of["malignancy"]["cross-patient"]["precision"] for name, of in judged.items()}
    table = [
        (
            "Similar cases, precision at 10 for malignancy across patients: what ships",
            span(across[WITH_HEAD]), "0.83", "retrieval",
        ),
        (
            "... gain over the nearest by diameter, paired",
            span(across[WITH_HEAD]["over"]["diameter"]), "above 0", "retrieval",
        ),
        *(
            (f"... {words}", span(across[name]), "", "retrieval")
            for name, words in (
                ("diameter", "the nearest by diameter alone"), (HEAD_ALONE, "the head without a network"),
                (ON_PAIRS, "the encoder tuned on pairs"), (MAIN, "the encoder without labels"),
                ("vae", "the VAE"), ("nodule-ssm", "nodule-ssm's features"),
                ("nodule-semantic", "nodule-semantic's embeddings"),
            )
            if name in across
        ),
    ]  # fmt: skip
    if "vae" in judged:
        # average precision: within a patient of less than eleven nodules, all are among the first ten in any order
        for name, words in ((WITH_HEAD, "what ships"), (ON_PAIRS, "the encoder tuned on pairs")):
            scopes = [judged[name]["malignancy"][scope] for scope in ("all", "same-patient", "cross-patient")]
            gains = "; ".join(span(scope["average_precision"]["over"]["vae"]) for scope in scopes)
            what = f"... mAP at 10, {words} over the VAE: all, same, other patients"
            table.append((what, gains, "above 0", "retrieval"))
    return table


def on_device_rows() -> list[tuple[str, str, str, str]]:
    """Encoders pretrained on a GPU, of the largest run."""
    largest = max(read("on_device")["runs"], key=lambda run: run["finished"])
    alone, beside = largest["alone"], largest["side_by_side"]
    text = (
        f"{largest['at_a_time']} at a time, {beside['images_per_second_of_each']:.0f} images/s each; "
        f"alone {alone['images_per_second']:.0f}, {100 * alone['share_of_peak']:.1f} % of the peak"
    )
    return [
        (f"Pretraining {largest['finished']} encoders for searching on an {largest['device']}", text, "", "on_device")
    ]


def workstation_rows() -> list[tuple[str, str, str, str]]:
    table = []
    if (RESULTS / "page.json").is_file():
        page = read("page")
        text = f"{page['first_ms']['median']} ms, longest {page['first_ms']['longest']} ms"
        what = f"Reading room: a study of {page['slices']} slices opened, its first image in the browser"
        table.append((what, text, "under 2 s", "page"))
    if (RESULTS / "workstation.json").is_file():
        found = read("workstation")
        scroll, times = found["scrolling"], found["start_to_ready_s"]
        table += [
            ("... start to ready, longest of five", f"{max(times):.1f} s", "under 3 s", "workstation"),
            ("... idle memory, server and worker", f"{found['idle_megabytes']} MB", "under 400 MB", "workstation"),
            (
                f"... {scroll['readers']} readers scrolling at once: frames, errors, p95",
                f"{scroll['frames']}, {sum(scroll['errors'].values())}, {scroll['milliseconds']['p95']:.0f} ms",
                "no error, under 300 ms",
                "workstation",
            ),
        ]
        if "killed" in found:
            killed = found["killed"]
            what = f"... {killed['studies']} studies, {sum(killed['kills'].values())} kills: analyzed once, twice, not"
            text = f"{killed['analyzed_once']}, {killed['analyzed_twice']}, {killed['not_analyzed']}"
            aside = killed.get("set_aside_after_three_kills", 0)
            text += f"; {aside} of them killed three times, and asked for again" if aside else ""
            table.append((what, text, "all once", "workstation"))
    return table


def risk_rows() -> list[tuple[str, str, str, str]]:
    risk = read("risk")
    found = risk["out_of_fold"]
    malignancy, diameter, gain = found["targets"]["malignancy"], found["diameter_alone"], found["gain_over_diameter"]
    whole = risk["whole_scan_of_LIDC-IDRI-0001"]
    proven = risk["proven_diagnosis"]
    table = [
        ("Malignancy, AUROC pooled over folds", span(malignancy["auroc"]), "0.932", "risk"),
        ("... mean of folds", f"{malignancy['auroc_mean_of_folds']:.3f}", "0.938", "risk"),
        ("... of the diameter alone, same folds", f"{diameter['auroc']:.3f}", "", "risk"),
        ("... gain over the diameter, paired", span(gain), "above 0", "risk"),
        ("... calibration error (10 equal-mass bins)", f"{malignancy['ece_10_equal_mass']:.3f}", "under 0.05", "risk"),
        (f"... of {proven['patients']} patients with a proven diagnosis", span(proven["auroc"]), "", "risk"),
    ]
    for name, target in TARGETS.items():
        value = span(found["targets"][name]["auroc"])
        table.append((f"{name.replace('_', ' ').capitalize()}, AUROC", value, f"{target:g}", "risk"))
    difference = f"{whole['small_volume']:.3f} and {whole['whole_series']:.3f}"
    return [*table, ("LIDC-IDRI-0001 from its small volume and whole series", difference, "within 0.05", "risk")]


WORDS = {
    "conspicuity": ("margin conspicuity", 0.86),
    "consistency": ("consistency (weighted)", 0.88),
    "margins=Spiculated": ("spiculated", 0.88),
    "margins=Lobulated": ("lobulated", 0.80),
    "shape": ("shape", 0.74),
    "calcification": ("calcification", 0.97),
}
"""What was asked for of each word without training for it (AUROC, classes cut as in ``score``)."""


def semantic_rows() -> list[tuple[str, str, str, str]]:
    semantic = read("semantic")
    found = semantic["out_of_fold"]
    malignancy, words = found["targets"]["malignancy"], found["zero_shot"]["templates"]["score"]
    reports = found["image_to_text"]
    table = [
        ("Images and words: malignancy, AUROC pooled over folds", span(malignancy["auroc"]), "", "semantic"),
        ("... mean of folds", f"{malignancy['auroc_mean_of_folds']:.3f}", "0.94", "semantic"),
        ("... gain over the diameter, paired", span(found["gain_over_diameter"]), "above 0", "semantic"),
        ("... gain over nodule-risk, paired", span(found["gain_over_other"]), "above 0", "semantic"),
    ]
    for question, (name, target) in WORDS.items():
        value = words[question]["auroc"]
        table.append((f"... {name} by words alone, AUROC", f"{value:.3f}", f"{target:g}", "semantic"))
    own = f"{reports['own']['recall_at_10']:.2f} (chance {reports['own_chance']['recall_at_10']:.2f})"
    table.append(("... the right report among the image's first ten", own, "far above chance", "semantic"))
    lost = semantic.get("trained_with_the_words_of_other_nodules")
    if lost:
        left = f"{lost['image_to_text']['own']['recall_at_10']:.2f}"
        table.append(("... and where nodules were trained with the words of others", left, "lost", "semantic"))
    speed = semantic["milliseconds_a_nodule_outlined_before"]
    table.append(("... a nodule through the ensemble", f"{speed['ensemble']:.0f} ms", "40 ms", "semantic"))
    table.append(("... cube, planes, measures and kernel machine included", f"{speed['all']:.0f} ms", "", "semantic"))
    faster = read("semantic_speed")["times_faster_than_eager"]["int8_and_bf16"]
    ratio = f"{faster['eager_f32']:.1f} times ({faster['eager_f32_last_block_for_one_token']:.1f} of our own tower)"
    table.append(
        ("Five-fold CLIP ViT-B/32, int8 and bf16, faster than eager torch", ratio, "5 times", "semantic_speed")
    )
    return table


def ssm_rows() -> list[tuple[str, str, str, str]]:
    found = read("ssm")["out_of_fold"]
    probes = found["honest"]["slice"]["cls, all"]
    forest = probes["forest"]
    ways = [way for view in found["honest"].values() for way in view.values()]
    above = [way["with_diameter_over_diameter"]["low"] > 0 for way in ways]
    table = [
        (
            "Features without labels (DINOv2): forest on frozen features, AUROC",
            span(forest["pretrained"]["auroc"]),
            "0.90",
            "ssm",
        ),
        ("... on those of the same network untrained", span(forest["untrained"]["auroc"]), "", "ssm"),
        ("... gain over untrained, paired", span(probes["gain_over_untrained"]), "0.08", "ssm"),
        (
            "... with the diameter, gain over the diameter, paired",
            f"{span(probes['with_diameter_over_diameter'])}; above 0 in {sum(above)} of {len(above)} ways to read them",
            "above 0",
            "ssm",
        ),
        (
            "... and as published, slices at random (patients on both sides)",
            f"{found['compat']['forest']['auroc']:.3f}",
            "",
            "ssm",
        ),
    ]
    if (RESULTS / "paper-noreen2025.json").is_file():
        labels = read("paper-noreen2025")["facts"]["labels"]
        for share, ways in labels.items():
            ours = max((ways[name]["mean"], name) for name in ways if name != "supervised from scratch")
            theirs = ways["supervised from scratch"]["mean"]
            text = f"{ours[0]:.3f} ({ours[1]}), {theirs:.3f}"
            what = f"... labels of {100 * float(share):g} % of the patients: best on them, supervised from scratch"
            table.append((what, text, "above it", "paper-noreen2025"))
    if not (RESULTS / "vit.json").is_file():
        return table
    speed = read("vit")
    shares = [f"{name} {100 * one['share_of_matmul']:.0f} %" for name, one in speed["training"].items()]
    table.append(("Pretraining against its bare matrix products, one core", ", ".join(shares), "40 %", "vit"))
    return [*table, vit_row(speed)]


def vit_row(speed: dict[str, Any]) -> tuple[str, str, str, str]:
    """One image at a time and two side by side; what bears any weights, then what only some attentions bear."""
    alone = speed["inference"]["times_faster_than_eager"]
    two = speed["inference"]["two_images_side_by_side_on_a_thread_each"]["times_faster_than_eager"]

    def told(ways: tuple[str, ...]) -> str:
        return " and ".join(f"{max(of[way] for way in ways):.1f}" for of in (alone, two))

    plain = ("f32", "bf16", "int8", "int8_and_bf16")
    text = f"{told(plain)} times (two images); {told(tuple(alone))} where attention bears int8"
    return ("ViT-S/14 at 504 x 504, faster than eager torch in float32, two cores", text, "4 times", "vit")


def outline_rows() -> list[tuple[str, str, str, str]]:
    outline = read("outline")
    table = []
    for key, words in (
        ("small_volumes", "Outline from the center alone, Dice: median, tenth percentile"),
        ("inserted_with_surroundings", "... inserted into a whole scan with its surroundings"),
        ("inserted_by_mask", "... inserted by its mask alone"),
    ):
        dice = outline[key].get("all", outline[key])["dice"]
        table.append((words, f"{dice['median']:.3f}, {dice['p10']:.3f}", "0.84, 0.70", "outline"))
    return table


def detection_rows() -> list[tuple[str, str, str, str]]:
    found = read("detection")["inserted nodules"]["all"]
    table = []
    for rate in (1, 4, 8):
        value = found[f"sensitivity at {rate} false a scan"]
        low, high = value["interval_95"]
        words = f"Detection of inserted nodules, sensitivity at {rate} false a scan"
        target = "0.80" if rate == 8 else ""
        table.append((words, f"{value['value']:.3f} ({low:.3f} to {high:.3f})", target, "detection"))
    return table


def evaluation_rows() -> list[tuple[str, str, str, str]]:
    metrics, data, oracle = read("metrics"), read("datasets"), read("paper-zhu2018")
    score, areas = metrics["luna16"], metrics["areas_one_nodule_a_patient"]
    cpm = next(row for row in oracle["rows"] if row["what"] == "CPM")
    ours, parsing = cpm["ours"], data["lidc-idri, parsing"]
    passed = data["memory, MiB resident"]["luna16, volumes read"]
    semantic = next(
        row["ours"]
        for row in read("paper-zhuang2025")["rows"]
        if row["part"] == "Semantic-only model: readers' traits and diameter"
        and row["what"] == "five folds: together, bootstrap"
        and row["metric"] == "auroc"
    )
    return [
        (
            "LUNA16's official score of a published detector (CPM)",
            f"{ours['value']:.5f} ({ours['low']:.3f} to {ours['high']:.3f})",
            "0.84197",
            "paper-zhu2018",
        ),
        (
            "... with 1,000 bootstraps, against the plain loop",
            f"{score['times_faster']:.0f} times faster",
            "10 times",
            "metrics",
        ),
        (
            "AUROC and AUPRC, 10,000 patient bootstraps, one core",
            f"{areas['seconds_median']:.2f} s, {areas['times_faster']:.0f} times faster than scikit-learn",
            "2 s",
            "metrics",
        ),
        (
            "All 1,318 LIDC reading files, unpacked and parsed, one core",
            f"{parsing['seconds with unpacking']:.1f} s",
            "10 s",
            "datasets",
        ),
        (
            "A pass over 900 scans, memory of the first and the last",
            f"{passed['first']:.0f} and {passed['last']:.0f} MiB",
            "flat",
            "datasets",
        ),
        (
            "Readers' traits and diameter alone, 1,694 LIDC nodules, AUROC",
            f"{semantic['value']:.3f} ({semantic['low']:.3f} to {semantic['high']:.3f})",
            "",
            "paper-zhuang2025",
        ),
    ]


def speed_rows() -> list[tuple[str, str, str, str]]:
    analyze = read("analyze")
    command, first = analyze["command"], analyze["command"]["first_finding"]
    center, diameter, volume = first["center_error_mm"], first["diameter_mm"], first["volume_mm3"]
    return [
        (
            "LIDC-IDRI-0001, first finding: off center, diameter, volume",
            f"{center:.1f} mm, {diameter:.1f} mm, {volume:.0f} mm³",
            "5 mm, 29.6 mm ± 20 %, 7500 mm³ ± 25 %",
            "analyze",
        ),
        (
            "`spicula analyze`, DICOM to four outputs, two cores",
            f"{command['wall_seconds_median']} s",
            "12 s",
            "analyze",
        ),
        ("... peak memory", f"{command['peak_memory_mib']} MiB", "2048 MiB", "analyze"),
    ]


def install_rows() -> list[tuple[str, str, str, str]]:
    install = read("install")
    torch = "torch" if install["torch_installed"] else "no torch"
    return [
        ("Plain install from the wheel", f"{install['wheel_mb']} MB wheel, {torch}", "no torch", "install"),
        ("... `spicula --help`, median", f"{install['help_seconds_median']:.2f} s", "0.5 s", "install"),
    ]


def block() -> str:
    lines = ["| what (patients apart; 95 % intervals) | result | asked for | file |", "|---|---|---|---|"]
    lines += [f"| {a} | {b} | {c} | [{d}](benchmarks/results/{d}.json) |" for a, b, c, d in rows()]
    return "\n".join(lines) + "\n"


def main() -> None:
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    new = before + BEGIN + block() + END + after
    if "--check" in sys.argv:
        if new != text:
            sys.exit("README.md is not what the files say. Hint: python benchmarks/readme_results.py")
        return
    readme.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
