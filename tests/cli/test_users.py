"""``spicula users`` through the commands themselves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from spicula.cli import users
from spicula.core.errors import InputError
from spicula.pipelines.workplace import open_workplace
from spicula.store.users import User

Run = Callable[..., tuple[int, str, str]]

PASSWORD, OTHER = "correct horse battery", "staple of the day"


@pytest.fixture
def run(tmp_path) -> Run:
    """Run ``spicula users``; gives its exit status and both of its streams."""

    def call(*arguments: object, typed: str = "") -> tuple[int, str, str]:
        environment = {"SPICULA_STORE": str(tmp_path / "store"), "COLUMNS": "120"}
        done = CliRunner().invoke(users.app, [*map(str, arguments)], env=environment, input=typed)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done.exit_code, done.stdout, done.stderr

    return call


def test_a_user_of_a_provider_has_no_password(tmp_path) -> None:
    store = tmp_path / "store"
    arguments = ["users", "add", "ada", "--subject", "https://login.example#7", "--store", str(store)]
    assert CliRunner().invoke(users.app, arguments[1:]).exit_code == 0
    with open_workplace(store) as place:
        assert place.users.with_subject("https://login.example#7") == User("ada", "reader")
        assert place.users.with_password("ada", "") is None


def test_a_user_from_the_first_day_to_the_last(run, tmp_path) -> None:
    assert "spicula users add" in run("list")[1]
    status, out, err = run("add", "Ada", "--role", "admin", typed=f"{PASSWORD}\n{PASSWORD}\n")
    assert status == 0
    assert "ada: admin" in out
    assert PASSWORD not in out + err
    assert run("list")[1].split() == ["ada", "admin"]
    secret = run("token", "ADA", "--label", "export", "--days", "1")[1].strip()
    with open_workplace(tmp_path / "store") as place:
        assert place.users.with_password("ada", PASSWORD) is not None
        session = place.users.session(secret)
        assert session is not None
        assert session.user.role == "admin"
    run("password", "ada", typed=f"{OTHER}\n{OTHER}\n")
    with open_workplace(tmp_path / "store") as place:
        assert place.users.with_password("ada", PASSWORD) is None
        assert place.users.with_password("ada", OTHER) is not None
        assert place.users.session(secret) is None
    assert run("disable", "ada")[0] == 0
    with open_workplace(tmp_path / "store") as place:
        assert place.users.with_password("ada", OTHER) is None
        noted = [(row["user"], row["action"], row["object"]) for row in place.audit.list()]
    told = [("command line", f"user.{what}", "ada") for what in ("disable", "password", "token", "add")]
    assert noted == told
    assert PASSWORD.encode() not in b"".join(path.read_bytes() for path in (tmp_path / "store").glob("store.sqlite*"))


def test_a_password_from_a_file(run, tmp_path) -> None:
    (tmp_path / "password").write_text(f"{PASSWORD}\nnot this line\n")
    assert run("add", "bob", "--password-file", tmp_path / "password")[0] == 0
    with open_workplace(tmp_path / "store") as place:
        user = place.users.with_password("bob", PASSWORD)
        assert user is not None
        assert user.role == "reader"
    with pytest.raises(InputError, match="password-file"):
        run("password", "bob", "--password-file", tmp_path / "none")
    (tmp_path / "password").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(InputError, match="no text"):
        run("password", "bob", "--password-file", tmp_path / "password")


def test_what_is_wrong_is_told(run, tmp_path: Path) -> None:
    status, out, err = run("add", "ada", typed=f"{PASSWORD}\n{OTHER}\n")
    assert status == 1  # the two differ, and nothing more was typed
    assert "do not match" in out + err
    (tmp_path / "short").write_text("short\n")
    with pytest.raises(InputError, match="12 or more"):
        run("add", "ada", "--password-file", tmp_path / "short")
    assert run("add", "ada", "--role", "owner")[0] == 2
    assert run("add", "ada", PASSWORD)[0] == 2  # never as an argument
    for command in (("disable", "ada"), ("token", "ada", "--label", "x")):
        with pytest.raises(InputError, match="nobody of this name"):
            run(*command)
