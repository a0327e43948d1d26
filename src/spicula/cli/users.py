"""``users``: who may log in to the reading room, and as what."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from spicula.cli.store_options import DEFAULT_STORE, DatabaseOption, StoreOption
from spicula.cli.storing import BY

app = typer.Typer(no_args_is_help=True, help="Who may log in to a store with 'spicula serve --users'.")

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Letters, digits and . _ @ -")]
PasswordFileOption = Annotated[
    Path | None,
    typer.Option("--password-file", help="File whose first line is the password; asked for twice if omitted."),
]


class Role(StrEnum):
    """What a user may do."""

    reader = "reader"
    admin = "admin"


@app.command("add")
def add(
    name: NameArgument,
    role: Annotated[Role, typer.Option(help="What they may do.")] = Role.reader,
    password_file: PasswordFileOption = None,
    subject: Annotated[
        str | None,
        typer.Option(help="ISSUER#SUB: who it is at an OpenID Connect provider; then there is no password."),
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    database: DatabaseOption = None,
) -> None:
    """Make a user."""
    from spicula.pipelines.workplace import open_workplace

    password = None if subject is not None and password_file is None else _password(password_file)
    with open_workplace(store, url=database) as place:
        user = place.users.add(name, role=role.value, password=password, subject=subject)
        place.audit.note(BY, "user.add", object=user.name, detail={"role": user.role})
    typer.echo(f"{user.name}: {user.role}\n\nNext: spicula serve --users")


@app.command("list")
def list_(store: StoreOption = DEFAULT_STORE, database: DatabaseOption = None) -> None:
    """Everybody who may log in."""
    from spicula.pipelines.workplace import open_workplace

    with open_workplace(store, url=database) as place:
        users = place.users.list()
    for user in users:
        typer.echo(f"{user.name:32} {user.role}")
    if not users:
        typer.echo("nobody\n\nNext: spicula users add NAME --role admin")


@app.command("password")
def password(
    name: NameArgument,
    password_file: PasswordFileOption = None,
    store: StoreOption = DEFAULT_STORE,
    database: DatabaseOption = None,
) -> None:
    """Give a user another password; their sessions and tokens end."""
    from spicula.pipelines.workplace import open_workplace

    with open_workplace(store, url=database) as place:
        place.users.set_password(name, _password(password_file))
        place.audit.note(BY, "user.password", object=name.lower())
    typer.echo(f"{name.lower()}: another password; sessions and tokens ended")


@app.command("disable")
def disable(name: NameArgument, store: StoreOption = DEFAULT_STORE, database: DatabaseOption = None) -> None:
    """Keep a user out from now on; what they did stays under their name."""
    from spicula.pipelines.workplace import open_workplace

    with open_workplace(store, url=database) as place:
        place.users.disable(name)
        place.audit.note(BY, "user.disable", object=name.lower())
    typer.echo(f"{name.lower()}: kept out; sessions and tokens ended")


@app.command("token")
def token(
    name: NameArgument,
    label: Annotated[str, typer.Option(help="What it is for.")],
    days: Annotated[float, typer.Option(min=0.01, max=3650, help="How long it lasts.")] = 90.0,
    store: StoreOption = DEFAULT_STORE,
    database: DatabaseOption = None,
) -> None:
    """Make a token by which a program acts as a user; it is shown once."""
    from spicula.core.errors import InputError
    from spicula.pipelines.workplace import open_workplace

    with open_workplace(store, url=database) as place:
        user = next((user for user in place.users.list() if user.name == name.strip().lower()), None)
        if user is None:
            raise InputError(f"user {name[:70]}", got="nobody of this name", hint="see 'spicula users list'")
        secret = place.users.begin(user, kind="token", label=label, hours=24 * days)
        place.audit.note(BY, "user.token", object=user.name, detail={"label": label[:64]})
    typer.echo(secret)
    typer.echo(f"of {user.name}, for {days:g} days; send it as 'Authorization: Bearer ...'", err=True)


def _password(file: Path | None) -> str:
    """From the first line of a file, or asked for twice without being shown."""
    if file is None:
        return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True))
    from spicula.core.errors import InputError

    try:
        with file.open(encoding="utf-8") as stream:
            return stream.readline().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        got = getattr(error, "strerror", None) or "no text"
        raise InputError(f"--password-file {file}", got=got, expected="a text file") from None
