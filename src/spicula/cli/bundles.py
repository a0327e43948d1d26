"""``bundle``: the trained models."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from spicula.cli.scans import Coords

app = typer.Typer(no_args_is_help=True, help="The trained models: what is there, their cards, their hashes.")
import_app = typer.Typer(
    no_args_is_help=True, help="Make bundles of weights that others published (needs the extra 'train')."
)
app.add_typer(import_app, name="import")

OutOption = Annotated[Path, typer.Option("--out", help="Folder of the bundle; an older bundle there is replaced.")]
TokenizerOption = Annotated[
    Path | None, typer.Option(help="tokenizer.json, bpe_simple_vocab_16e6.txt.gz or merges.txt, kept in the bundle.")
]
LicenceOption = Annotated[str | None, typer.Option(help="Licence of the weights, for the card.")]


class Best(StrEnum):
    """Which loss a fold's weights were the best of."""

    both = "both"
    clip = "clip"
    pred = "pred"


class Merge(StrEnum):
    """How often adapters are summed into the weights."""

    once = "once"
    paper = "paper"


@app.command("list")
def bundle_list() -> None:
    """The shipped bundles with their task, licence and size."""
    from spicula.core.bundle import shipped_bundles

    for bundle in shipped_bundles():
        size = sum(file.stat().st_size for file in bundle.folder.iterdir()) / 1e6
        typer.echo(
            f"{bundle.name:20} {bundle.task:10} {size:6.2f} MB  {bundle.card.get('licence', 'no licence stated')}"
        )
    typer.echo("\nNext: spicula bundle show NAME")


@app.command("show")
def bundle_show(name: Annotated[str, typer.Argument(help="Name of a shipped bundle, or a folder.")]) -> None:
    """The card of one bundle: data, licence, metrics, intended use, limits."""
    import json

    from spicula.core.bundle import load_bundle

    bundle = load_bundle(name)
    typer.echo(f"{bundle.fingerprint}\n{bundle.folder}\n")
    typer.echo(json.dumps(dict(bundle.manifest), indent=2, ensure_ascii=False))


@app.command("verify")
def bundle_verify(
    names: Annotated[list[str] | None, typer.Argument(help="Names or folders; all shipped ones if omitted.")] = None,
) -> None:
    """Check every file of bundles against its hash."""
    from spicula.core.bundle import load_bundle, shipped_bundles

    for bundle in [load_bundle(name) for name in names] if names else shipped_bundles():
        bundle.verify()
        typer.echo(f"{bundle.fingerprint}  whole")


@app.command("quantize")
def bundle_quantize(
    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle of 'bundle import clip-nodule'.")],
    nodules: Annotated[Path, typer.Argument(help="Known nodules (CSV as for 'spicula score'): what it will see.")],
    out: OutOption,
    coords: Annotated[Coords, typer.Option(help="What the coordinates are.")] = Coords.lps,
    limit: Annotated[int, typer.Option(min=8, help="At most so many nodules, spread over the table.")] = 64,
) -> None:
    """An imported ensemble in int8, with how far it agrees with the one it was made of (needs the extra 'train')."""
    from spicula.pipelines.quantize_bundle import quantize_bundle

    made = quantize_bundle(bundle, nodules, out, coords=coords.value, limit=limit, report=typer.echo)
    _print_imported(made, f"spicula score nodules.csv --compat --bundle {out} --out predictions.csv")


@import_app.command("clip-nodule")
def import_clip_nodule_command(
    folder: Annotated[Path, typer.Argument(metavar="CKPT_DIR", help="experiment_... with args.txt and fold_k/*.pt.")],
    out: OutOption,
    base: Annotated[
        Path | None,
        typer.Option(help="CLIP before the training (ViT-B-32.pt or a Hugging Face folder): tells merged adapters."),
    ] = None,
    tokenizer: TokenizerOption = None,
    best: Annotated[Best, typer.Option(help="Which of a fold's three files.")] = Best.both,
    fold: Annotated[list[int] | None, typer.Option(min=0, help="This fold only; may be given again.")] = None,
    alpha: Annotated[float | None, typer.Option(help="The adapters' alpha; that of args.txt, else 1.")] = None,
    compat: Annotated[
        Merge, typer.Option(help="paper: adapters twice in fold 0, as the authors' evaluation runs it.")
    ] = Merge.once,
    licence: LicenceOption = None,
) -> None:
    """An experiment folder of CLIP_nodule: one network a fold, with its calibrators."""
    from spicula.pipelines.import_clip import import_clip_nodule

    bundle = import_clip_nodule(
        folder, out, base=base, tokenizer=tokenizer, best=best.value, folds=fold, alpha=alpha, compat=compat.value,
        licence=licence, report=typer.echo,
    )  # fmt: skip
    for network in bundle.manifest["outputs"]["networks"]:
        told = f", told by {network['told_by']}" if "told_by" in network else ""
        typer.echo(f"fold {network['fold']}: adapters {network['adapters']}{told}")
    _print_imported(bundle, f"spicula score nodules.csv --compat --bundle {out} --out predictions.csv")


@import_app.command("openai-clip")
def import_openai_clip_command(
    file: Annotated[Path, typer.Argument(help="ViT-B-32.pt as OpenAI published it, or a state dict of its names.")],
    out: OutOption,
    tokenizer: TokenizerOption = None,
    licence: LicenceOption = None,
) -> None:
    """CLIP as OpenAI published it: both towers."""
    from spicula.pipelines.import_clip import import_openai_clip

    bundle = import_openai_clip(file, out, tokenizer=tokenizer, licence=licence, report=typer.echo)
    _print_imported(bundle, f"spicula bundle show {out}")


@import_app.command("hf-clip")
def import_hf_clip_command(
    folder: Annotated[Path, typer.Argument(help="Folder with config.json and model.safetensors (or .bin).")],
    out: OutOption,
    tokenizer: TokenizerOption = None,
    licence: LicenceOption = None,
) -> None:
    """A CLIPModel in a Hugging Face folder: both towers."""
    from spicula.pipelines.import_clip import import_hf_clip

    bundle = import_hf_clip(folder, out, tokenizer=tokenizer, licence=licence, report=typer.echo)
    _print_imported(bundle, f"spicula bundle show {out}")


def _print_imported(bundle: Any, following: str) -> None:
    typer.echo(f"{bundle.fingerprint}\nLicence: {bundle.card['licence']}\n\nNext: {following}")
