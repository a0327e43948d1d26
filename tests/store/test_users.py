"""Users, sessions, tokens and the record of what they did."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from spicula.core.errors import InputError
from spicula.store.tables import SECRETS, USERS
from spicula.store.users import MOST_TOKENS, Audit, Users

PASSWORD = "correct horse battery"


@pytest.fixture
def users(engine) -> Users:
    return Users(engine)


def test_a_user_logs_in_with_the_right_password_alone(users) -> None:
    ada = users.add("Ada", role="admin", password=PASSWORD)
    assert users.with_password(" ADA ", PASSWORD) == ada
    assert users.with_password("ada", PASSWORD + "x") is None
    assert users.with_password("bob", PASSWORD) is None
    assert users.with_password("ada", "x" * 5000) is None
    assert users.list() == (ada,)


def test_the_database_tells_neither_passwords_nor_secrets(users) -> None:
    ada = users.add("ada", role="reader", password=PASSWORD)
    secret = users.begin(ada)
    with users.engine.connect() as connection:
        kept = str(connection.execute(select(USERS)).all()) + str(connection.execute(select(SECRETS)).all())
    assert PASSWORD not in kept
    assert secret not in kept
    assert "$argon2id$" in kept


def test_a_session_lasts_until_it_is_ended_or_over(users) -> None:
    ada = users.add("ada", role="reader", password=PASSWORD)
    secret = users.begin(ada)
    session = users.session(secret)
    assert session is not None
    assert (session.user, session.kind, bool(session.csrf)) == (ada, "session", True)
    assert users.session(secret[:-1]) is None
    users.end(secret)
    assert users.session(secret) is None
    assert users.session(users.begin(ada, hours=-1)) is None


def test_a_new_password_or_disabling_ends_everything(users) -> None:
    ada = users.add("ada", role="reader", password=PASSWORD)
    secret, token = users.begin(ada), users.begin(ada, kind="token", label="script")
    users.set_password("ada", PASSWORD + "!")
    assert users.session(secret) is None
    assert users.session(token) is None
    token = users.begin(ada, kind="token")
    users.disable("ada")
    assert users.session(token) is None
    assert users.with_password("ada", PASSWORD + "!") is None
    assert users.list() == ()


def test_who_logs_in_elsewhere_has_no_password(users) -> None:
    eve = users.add("eve@hospital.org", role="reader", subject="https://id.example|42")
    assert users.with_subject("https://id.example|42") == eve
    assert users.with_subject("https://id.example|43") is None
    assert users.with_password("eve@hospital.org", "") is None


def test_tokens_are_not_made_without_end(users) -> None:
    ada = users.add("ada", role="reader", password=PASSWORD)
    for _ in range(MOST_TOKENS):
        users.begin(ada, kind="token")
    with pytest.raises(InputError, match="end one"):
        users.begin(ada, kind="token")
    users.begin(ada)


@pytest.mark.parametrize(
    ("name", "more", "said"),
    [
        ("", {}, "1 to 63"),
        ("a b", {}, "1 to 63"),
        ("<script>", {}, "1 to 63"),
        ("ada", {"password": "short"}, "12 or more"),
        ("ada", {"role": "king"}, "one of reader, admin"),
    ],
)
def test_bad_users_are_refused(users, name, more, said) -> None:
    with pytest.raises(InputError, match=said):
        users.add(name, **{"role": "reader", "password": PASSWORD, **more})


def test_a_name_is_taken_whatever_its_case(users) -> None:
    users.add("ada", role="reader", password=PASSWORD)
    with pytest.raises(InputError, match="one who is there"):
        users.add("ADA", role="admin", password=PASSWORD)
    with pytest.raises(InputError, match="nobody"):
        users.disable("bob")


def test_the_record_is_read_from_the_newest_on(engine) -> None:
    audit = Audit(engine)
    for n in range(5):
        audit.note("ada", "study.open", object=f"1.{n}", detail={"n": n}, address="127.0.0.1")
    newest = audit.list(limit=2)
    assert [row["object"] for row in newest] == ["1.4", "1.3"]
    assert [row["object"] for row in audit.list(limit=9, before=newest[-1]["id"])] == ["1.2", "1.1", "1.0"]
    assert newest[0]["detail"] == {"n": 4}
