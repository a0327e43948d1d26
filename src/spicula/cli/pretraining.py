"""``pretrain``: features without labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import typer

from spicula.cli.training import (
    Arch,
    EpochsOption,
    LatentOption,
    OutlinesOption,
    PublishedOption,
    ScansOption,
    ThreadsOption,
    WidthOption,
)

app = typer.Typer(no_args_is_help=True, help="Learn features without labels (needs the extra 'train').")

Config: TypeAlias = Literal["compact", "short", "long"]
Pool: TypeAlias = Literal["gem", "average", "max"]
DataOption = Annotated[Path, typer.Option("--data", help="Folder of chest CTs, or of the development data.")]
OutOption = Annotated[Path, typer.Option("--out", help="Run folder; the same command goes on where it stopped.")]


@app.command("dinov2")
def pretrain_dinov2_command(
    data: DataOption,
    out: OutOption,
    arch: Annotated[Arch, typer.Option(help="Which vision transformer.")] = "vit-mini",
    registers: Annotated[int, typer.Option(min=0, help="Register tokens.")] = 0,
    config: Annotated[Config, typer.Option(help="For a CPU and some thousand slices, or as published.")] = "compact",
    epochs: Annotated[int | None, typer.Option(min=1, help="The config's if omitted.")] = None,
    batch: Annotated[int | None, typer.Option(min=2, help="Images of a step; the config's if omitted.")] = None,
    init: Annotated[Path | None, typer.Option(help="Weights of DINOv2 to go on from.")] = None,
    scan: ScansOption = None,
    outline_run: OutlinesOption = None,
    leave_out: Annotated[
        Path | None, typer.Option(help="File with patients to leave out, one a line: those you will test on.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of all chance.")] = 0,
    threads: ThreadsOption = 1,
) -> None:
    """DINOv2 on slices, with views made for CT. On many devices: accelerate launch -m spicula.cli pretrain ..."""
    from spicula.core.extras import require

    require("torch", extra="train")
    from dataclasses import replace

    from spicula.networks.vit import SHAPES
    from spicula.networks.vit_weights import load_strictly, read_dinov2
    from spicula.pipelines.pretrain_dinov2 import nearest_neighbors_probe, pretrain_dinov2
    from spicula.pipelines.pretraining_data import read_slices, rows_without
    from spicula.pretraining.dinov2 import DinoRecipe, compact_recipe, continued, long_recipe

    recipe = {"compact": compact_recipe, "short": DinoRecipe, "long": long_recipe}[config]()
    if epochs is not None:
        recipe = compact_recipe(epochs=epochs) if config == "compact" else replace(recipe, epochs=epochs)
    recipe = replace(recipe, seed=seed, batch=batch or recipe.batch)
    shape = SHAPES[arch].with_registers(registers)
    initial = None
    if init is not None:
        from spicula.networks.vit import VisionTransformer

        network, recipe = VisionTransformer(shape), continued(recipe)
        load_strictly(network, read_dinov2(init), source=str(init))
        initial = network.state_dict()
    table = read_slices(data, out / "slices", scans=scan or (), outline_run=outline_run, seed=seed, report=typer.echo)
    left_out = leave_out.read_text(encoding="utf-8").split() if leave_out else []
    rows = rows_without(table, left_out)
    probe = nearest_neighbors_probe(table, data, rows)
    typer.echo(f"{len(rows)} slices of {len(set(table.patients[rows].tolist()))} patients")
    pretrain_dinov2(
        table, rows, out, shape=shape, recipe=recipe, initial=initial, probe=probe, threads=threads, report=typer.echo
    )
    typer.echo(f"Run: {out}")


LeaveOut = Annotated[Path | None, typer.Option(help="File with patients to leave out, one a line.")]


@app.command("simclr")
def pretrain_simclr_command(
    data: DataOption,
    out: OutOption,
    width: WidthOption = None,
    epochs: EpochsOption = None,
    frangi: Annotated[bool, typer.Option("--frangi/--no-frangi", help="Frangi's response as a second channel.")] = True,
    pool: Annotated[Pool, typer.Option(help="How a feature map becomes a vector.")] = "gem",
    published: PublishedOption = False,
    scan: ScansOption = None,
    outline_run: OutlinesOption = None,
    leave_out: LeaveOut = None,
    seed: Annotated[int, typer.Option(help="Of all chance.")] = 0,
    threads: ThreadsOption = 1,
) -> None:
    """SimCLR on regions of slices, a ResNet-18 with GeM pooling."""
    from spicula.pipelines.search_arms import Arm, recipe_of

    _pretrain_regions(
        Arm(frangi=frangi, pool=pool), recipe_of(width=width, epochs=epochs, published=published, seed=seed), data,
        out, scan=scan, outline_run=outline_run, leave_out=leave_out, threads=threads,
    )  # fmt: skip


@app.command("vae")
def pretrain_vae_command(
    data: DataOption,
    out: OutOption,
    width: WidthOption = None,
    epochs: EpochsOption = None,
    latent: LatentOption = None,
    published: PublishedOption = False,
    scan: ScansOption = None,
    outline_run: OutlinesOption = None,
    leave_out: LeaveOut = None,
    seed: Annotated[int, typer.Option(help="Of all chance.")] = 0,
    threads: ThreadsOption = 1,
) -> None:
    """A variational autoencoder of regions of slices: what SimCLR is compared with."""
    from spicula.pipelines.search_arms import Arm, recipe_of

    recipe = recipe_of(width=width, epochs=epochs, published=published, latent=latent, seed=seed)
    _pretrain_regions(
        Arm("vae", frangi=False, pool="average"), recipe, data, out, scan=scan, outline_run=outline_run,
        leave_out=leave_out, threads=threads,
    )  # fmt: skip


def _pretrain_regions(
    arm: Any, recipe: Any, data: Path, out: Path, *, scan: list[Path] | None, outline_run: Path | None,
    leave_out: Path | None, threads: int,
) -> None:  # fmt: skip
    from spicula.core.extras import require

    require("torch", extra="train")
    from dataclasses import asdict

    from spicula.pipelines.pretrain_regions import pretrain_regions
    from spicula.pipelines.pretraining_data import read_slices, rows_without
    from spicula.pipelines.run_folder import as_json, open_run
    from spicula.pipelines.search_arms import pretraining_of, shape_of
    from spicula.pipelines.search_nodules import as_in_use

    left_out = sorted(leave_out.read_text(encoding="utf-8").split()) if leave_out else []
    arguments = {"arm": asdict(arm), "recipe": asdict(recipe), "left_out": left_out}
    open_run(out, f"pretrain {arm.method}", as_json(arguments))
    table = read_slices(data, out / "slices", scans=scan or (), outline_run=outline_run, report=typer.echo)
    rows = rows_without(table, left_out)
    typer.echo(f"{len(rows)} slices of {len(set(table.patients[rows].tolist()))} patients")
    pretrain_regions(
        as_in_use(table), rows, out, method=arm.method, shape=shape_of(arm, recipe), recipe=pretraining_of(arm, recipe),
        threads=threads, report=typer.echo,
    )  # fmt: skip
    typer.echo(f"Run: {out}")
