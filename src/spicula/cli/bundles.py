"""``bundle``: the trained models."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="The trained models: what is there, their cards, their hashes.")


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
