"""``train``: the models again, from data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import typer

app = typer.Typer(no_args_is_help=True, help="Train the models again from data (needs the extra 'train').")

DataOption = Annotated[Path, typer.Option("--data", help="Folder with lidc_nodules, lidc_xml and scans.")]
RunOption = Annotated[Path, typer.Option("--out", help="Run folder; the same command goes on where it stopped.")]
ScansOption = Annotated[
    list[Path] | None, typer.Option("--scan", help="A further scan whose lung is added; may be repeated.")
]
OutlinesOption = Annotated[
    Path | None, typer.Option("--outline-run", help="Run folder of 'train outline'; the shipped outlines if omitted.")
]
CompareOption = Annotated[
    list[Path] | None, typer.Option("--compare", help="A run of 'train ssm' or 'train semantic'; may be repeated.")
]
Arch: TypeAlias = Literal["vit-mini", "vit-tiny", "vit-small", "vit-base", "vit-large", "vit-giant"]
Config: TypeAlias = Literal["compact", "paper"]
Tuning: TypeAlias = Literal["lora", "ft", "probe"]
Modality: TypeAlias = Literal["clip", "vision"]
Loss: TypeAlias = Literal["contrastive", "triplet", "supervised"]
WidthOption = Annotated[int | None, typer.Option("--width", min=4, help="Of the ResNet-18: 32, 64 as published.")]
EpochsOption = Annotated[int | None, typer.Option("--epochs", min=1, help="Of a pretraining: 30, 1000 as published.")]
LatentOption = Annotated[int | None, typer.Option("--latent", min=2, help="Of a VAE's code: 64, 256 as published.")]
PublishedOption = Annotated[bool, typer.Option("--published", help="The paper's views, optimizer and sizes.")]
ThreadsOption = Annotated[int, typer.Option(min=1, help="Threads.")]


@app.command("outline")
def train_outline_command(
    data: DataOption,
    out: RunOption,
    background: Annotated[
        Path | None, typer.Option(help="A CT without marked nodules, whose lung then surrounds some of them.")
    ] = None,
    threads: ThreadsOption = 1,
) -> None:
    """The network that outlines a nodule from its center."""
    from spicula.formats import read_volume
    from spicula.pipelines.train_outline import train_outline

    surroundings = read_volume(background) if background else None
    _print_bundle(train_outline(data / "lidc_nodules", out, background=surroundings, threads=threads), out)


@app.command("detection")
def train_detection_command(data: DataOption, out: RunOption, threads: ThreadsOption = 1) -> None:
    """The filter of the nodule detector."""
    from spicula.pipelines.train_detection import train_detection

    _print_bundle(train_detection(data, out, workers=threads), out)


@app.command("dino-detection")
def train_dino_detection_command(
    data: DataOption,
    out: RunOption,
    backbone: Annotated[
        Path, typer.Option(help="Run folder of 'pretrain dinov2', or a file of DINOv2 weights: what sees the slices.")
    ],
    frozen: Annotated[bool, typer.Option("--frozen/--tuned", help="Whether the backbone's weights stay.")] = True,
    compat: Annotated[bool, typer.Option("--compat", help="The published head too: one box a slice.")] = False,
    threads: ThreadsOption = 1,
) -> None:
    """A detector on the patches of DINOv2, tested by FROC on scans and patients left out."""
    from spicula.pipelines.dino_detection_fit import Recipe
    from spicula.pipelines.train_dino_detection import train_dino_detection

    bundle = train_dino_detection(
        data, out, backbone=backbone, frozen=frozen, compat=compat, recipe=Recipe(threads=threads), report=typer.echo
    )
    _print_bundle(bundle, out)


@app.command("ssm")
def train_ssm_command(
    data: DataOption,
    out: RunOption,
    arch: Annotated[Arch, typer.Option(help="Which vision transformer.")] = "vit-mini",
    epochs: Annotated[int, typer.Option(min=1, help="Of each pretraining.")] = 40,
    scan: ScansOption = None,
    outline_run: OutlinesOption = None,
    compare: Annotated[Path | None, typer.Option(help="predictions.csv of 'train risk', to compare with.")] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="0, 1, ... or all: pretrainings to do now; every one if omitted.")
    ] = None,
    threads: ThreadsOption = 1,
) -> None:
    """LungNodule-SSM: DINOv2 without labels, inside patient folds, then heads on its frozen features."""
    from spicula.core.extras import require

    require("torch", extra="train")
    from spicula.networks.vit import SHAPES
    from spicula.pipelines.train_ssm import EVALUATION, train_ssm
    from spicula.pretraining.dinov2 import compact_recipe

    found = train_ssm(
        data, out, shape=SHAPES[arch], recipe=compact_recipe(epochs=epochs), scans=scan or (),
        outline_run=outline_run, compare=compare, only=only or (), threads=threads, report=typer.echo,
    )  # fmt: skip
    if found is not None:
        forest = found["honest"]["slice"]["cls, all"]["forest"]
        for name, judged in forest.items():
            typer.echo(f"forest on the class token, {name}: AUROC {judged['auroc']['value']:.4f}")
        typer.echo(f"as published, slices at random: accuracy {found['compat']['forest']['accuracy']:.4f}")
        typer.echo(f"Result: {out / EVALUATION}")


@app.command("retrieval")
def train_retrieval_command(
    data: DataOption,
    out: RunOption,
    width: WidthOption = None,
    epochs: EpochsOption = None,
    latent: LatentOption = None,
    published: PublishedOption = False,
    loss: Annotated[
        Loss, typer.Option(help="Of the tuning on pairs: as published, as in its code, or of all pairs.")
    ] = ("contrastive"),
    margin: Annotated[
        float | None, typer.Option(min=0.0, max=2.0, help="Of that loss: 0.8, for triplets 1, if omitted.")
    ] = None,
    outline_run: OutlinesOption = None,
    arm: Annotated[
        list[str] | None, typer.Option(help="An encoder to compare with, such as 'vae'; may be repeated. Else all.")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="0, 1, ... or all: pretrainings to do now; every one if omitted.")
    ] = None,
    compare: CompareOption = None,
    threads: ThreadsOption = 1,
) -> None:
    """Lesion search: encoders without labels, tuning on pairs, a head that ships, the bundle and LIDC's index."""
    from spicula.pipelines.retrieval_table import TABLE, lines
    from spicula.pipelines.retrieval_tuning import tuning_of
    from spicula.pipelines.search_arms import recipe_of
    from spicula.pipelines.train_retrieval import train_retrieval

    recipe = recipe_of(width=width, epochs=epochs, latent=latent, published=published)
    found = train_retrieval(
        data, out, recipe=recipe, tuning=tuning_of(loss, margin), outline_run=outline_run, arms=arm or (),
        only=only or (), compare=compare or (), threads=threads, report=typer.echo,
    )  # fmt: skip
    if found is not None:
        typer.echo("\n".join(lines(found["embeddings"])))
        typer.echo(f"Result: {out / TABLE}")


@app.command("risk")
def train_risk_command(
    data: DataOption,
    out: RunOption,
    outline_run: Annotated[
        Path | None, typer.Option(help="Run folder of 'train outline'; that training runs first if omitted.")
    ] = None,
    threads: ThreadsOption = 1,
) -> None:
    """Malignancy and traits, in patient folds, calibrated inside them."""
    from spicula.pipelines.train_risk import train_risk

    _print_bundle(train_risk(data, out, outline_run=outline_run, threads=threads), out)


@app.command("semantic")
def train_semantic_command(
    data: DataOption,
    out: RunOption,
    config: Annotated[Config, typer.Option(help="Small towers, or the published ones as in the paper.")] = "compact",
    outline_run: Annotated[
        Path | None, typer.Option(help="Run folder of 'train outline'; that training runs first if omitted.")
    ] = None,
    tuning: Annotated[Tuning | None, typer.Option(help="Of the paper's config; lora if omitted.")] = None,
    modality: Annotated[Modality, typer.Option(help="vision: without words.")] = "clip",
    clip: Annotated[Path | None, typer.Option(help="Folder of CLIP's weights, for the paper's config.")] = None,
    shuffle_texts: Annotated[
        bool, typer.Option("--shuffle-texts", help="Give each nodule another one's words: what alignment is lost?")
    ] = False,
    compare: Annotated[Path | None, typer.Option(help="predictions.csv of 'train risk', to compare with.")] = None,
    seed: Annotated[int, typer.Option(help="Of all chance.")] = 0,
    threads: ThreadsOption = 1,
) -> None:
    """Images of nodules and what readers said of them, aligned, in patient folds."""
    from spicula.pipelines.semantic_recipe import recipe_of
    from spicula.pipelines.train_semantic import train_semantic

    recipe = recipe_of(
        config, tuning=tuning, modality=modality, shuffle_texts=shuffle_texts, seed=seed, threads=threads
    )
    train_semantic(data, out, recipe=recipe, clip=clip, outline_run=outline_run, other=compare, report=typer.echo)
    again = f"spicula train semantic --data {data} --out {out}-shuffled --shuffle-texts"
    typer.echo(f"Run: {out}\n\nNext, what is lost with the words of others: {again}")


@app.command("ablations")
def train_ablations_command(
    data: DataOption,
    out: Annotated[Path, typer.Option("--out", help="Folder of the job; the same command goes on where it stopped.")],
    config: Annotated[Config, typer.Option(help="Small towers, or the published ones as in the paper.")] = "compact",
    outline_run: Annotated[Path | None, typer.Option(help="Run folder of 'train outline'.")] = None,
    clip: Annotated[Path | None, typer.Option(help="Folder of CLIP's weights, for the paper's config.")] = None,
    material: Annotated[
        Path | None, typer.Option(help="Run folder of 'train semantic', whose cut nodules are used again.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Of every arm; the config's if omitted.")] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="ft, probe, lora, vision or shuffled, to train now; all if omitted.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of all chance.")] = 0,
    threads: ThreadsOption = 1,
) -> None:
    """What tuning, modality and words are worth: every arm in the same folds, with the tests of the paper."""
    from dataclasses import replace

    from spicula.pipelines.ablations import RESULT, run_ablations
    from spicula.pipelines.semantic_recipe import recipe_of

    recipe = recipe_of(config, seed=seed, threads=threads)
    recipe = replace(recipe, epochs=epochs or recipe.epochs)
    found = run_ablations(
        data, out, recipe=recipe, clip=clip, outline_run=outline_run, material=material, only=only or (),
        report=typer.echo,
    )  # fmt: skip
    if found is not None:
        for arm, areas in found["arms"].items():
            typer.echo(f"{arm:9}  AUROC {areas['auroc']['mean']:.4f} mean of folds")
        typer.echo(f"Result: {out / RESULT}")


def _print_bundle(bundle: Any, out: Path) -> None:
    typer.echo(f"{bundle.fingerprint}\nRun: {out}\n\nNext: spicula bundle show {bundle.folder}")
