"""The options by which every command names the same store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def default_store() -> Path:
    """Where a store is that no option names: in the user's folder for data."""
    import platformdirs

    return Path(platformdirs.user_data_dir("spicula")) / "store"


DEFAULT_STORE = default_store()

StoreOption = Annotated[Path, typer.Option("--store", envvar="SPICULA_STORE", help="Folder of the store.")]
DatabaseOption = Annotated[
    str | None,
    typer.Option(
        "--database", envvar="SPICULA_DATABASE", help="postgresql://USER@HOST/DB; a file in the store if omitted."
    ),
]
