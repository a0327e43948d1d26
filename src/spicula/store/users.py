"""Users, their passwords, sessions and tokens, and the record of who saw and changed what.

Passwords are kept as argon2id hashes. Of a session or token the store keeps a SHA-256 alone: 256 random bits need no
slow hash, and who reads the database cannot log in with it.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from sqlalchemy import Engine, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from spicula.core.errors import InputError
from spicula.core.extras import require
from spicula.store.clock import later, now
from spicula.store.tables import AUDIT, SECRETS, USERS

Role: TypeAlias = Literal["reader", "admin"]
Secret: TypeAlias = Literal["session", "token"]

ROLES: tuple[Role, ...] = ("reader", "admin")
SHORTEST_PASSWORD, LONGEST_PASSWORD = 12, 1024

SESSION_HOURS = 12.0
TOKEN_DAYS = 90.0
MOST_TOKENS = 20
"""Of one user."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._@-]{0,62}")


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who may log in.

    Args:
        name: Lower case.
        role: What they may do.
    """

    name: str
    role: Role


@dataclass(frozen=True, slots=True)
class Session:
    """Who a request is from.

    Args:
        user: The user.
        kind: ``"session"`` of a browser, or ``"token"`` of a program.
        csrf: What changes by a browser must repeat; empty for a token.
    """

    user: User
    kind: Secret
    csrf: str


class Users:
    """The users of a store.

    Args:
        engine: Of its database.
    """

    def __init__(self, engine: Engine) -> None:
        argon2 = require("argon2", extra="serve")
        self.engine, self._hasher, self._errors = engine, argon2.PasswordHasher(), argon2.exceptions
        self._nobody = self._hasher.hash(secrets.token_urlsafe())

    def add(self, name: str, *, role: Role, password: str | None = None, subject: str | None = None) -> User:
        """Make a user.

        Args:
            name: Letters, digits and ``. _ @ -``; case does not matter.
            role: ``"reader"`` or ``"admin"``.
            password: 12 characters or more; None for one who logs in elsewhere.
            subject: Identity at the place where they log in (OpenID Connect); None for none.

        Raises:
            InputError: The name is taken or no name, the password is too short, or there is no such role.
        """
        name = name.strip().lower()
        if not _NAME.fullmatch(name):
            raise InputError("name of the user", got=repr(name[:70]), expected="1 to 63 letters, digits or . _ @ -")
        if role not in ROLES:
            raise InputError("role", got=repr(role), expected=f"one of {', '.join(ROLES)}")
        row = {
            "name": name, "role": role, "password_hash": None if password is None else self._hashed(password),
            "subject": subject, "disabled": False, "created_at": now(),
        }  # fmt: skip
        try:
            with self.engine.begin() as connection:
                connection.execute(insert(USERS).values(row))
        except IntegrityError:
            raise InputError(f"user {name}", got="one who is there", hint="take another name") from None
        return User(name, role)

    def _hashed(self, password: str) -> str:
        if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
            raise InputError("password", got=f"{len(password)} characters", expected=f"{SHORTEST_PASSWORD} or more")
        return str(self._hasher.hash(password))

    def set_password(self, name: str, password: str) -> None:
        """Give a user another password; all their sessions and tokens end.

        Raises:
            InputError: There is no such user, or the password is too short.
        """
        self._change(name, {"password_hash": self._hashed(password)})

    def disable(self, name: str) -> None:
        """Keep a user out from now on.

        Raises:
            InputError: There is no such user.
        """
        self._change(name, {"disabled": True})

    def _change(self, name: str, values: Mapping[str, Any]) -> None:
        with self.engine.begin() as connection:
            if connection.execute(update(USERS).where(USERS.c.name == name.lower()).values(**values)).rowcount != 1:
                raise InputError(f"user {name[:70]}", got="nobody of this name")
            connection.execute(delete(SECRETS).where(SECRETS.c.user == name.lower()))

    def list(self) -> tuple[User, ...]:
        """Everybody who may log in, by name."""
        query = select(USERS.c.name, USERS.c.role).where(USERS.c.disabled.is_(False)).order_by(USERS.c.name)
        with self.engine.connect() as connection:
            return tuple(User(*row) for row in connection.execute(query))

    def with_password(self, name: str, password: str) -> User | None:
        """Who has this name and password; None for a wrong one, after the same time whoever it is."""
        with self.engine.connect() as connection:
            row = connection.execute(select(USERS).where(USERS.c.name == name.strip().lower())).mappings().one_or_none()
        known = None if row is None else row["password_hash"]
        try:
            self._hasher.verify(known or self._nobody, password[: LONGEST_PASSWORD + 1])
        except (self._errors.VerificationError, self._errors.InvalidHashError):
            return None
        if row is None or known is None or row["disabled"]:
            return None
        if self._hasher.check_needs_rehash(known):
            with self.engine.begin() as connection:
                connection.execute(
                    update(USERS).where(USERS.c.name == row["name"]).values(password_hash=self._hasher.hash(password))
                )
        return User(row["name"], row["role"])

    def with_subject(self, subject: str) -> User | None:
        """Who has this identity elsewhere; None for nobody."""
        query = select(USERS.c.name, USERS.c.role).where(USERS.c.subject == subject, USERS.c.disabled.is_(False))
        with self.engine.connect() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else User(*row)

    def begin(self, user: User, *, kind: Secret = "session", label: str = "", hours: float | None = None) -> str:
        """Begin a session, or make a token.

        Args:
            user: Whose.
            kind: Of a browser, or of a program.
            label: What a token is for.
            hours: How long it lasts; 12 hours for a session, 90 days for a token if None.

        Returns:
            The secret: shown once, never kept.

        Raises:
            InputError: The user has as many tokens as may be.
        """
        secret = f"spicula_{secrets.token_urlsafe(32)}"
        lasts = hours if hours is not None else SESSION_HOURS if kind == "session" else 24 * TOKEN_DAYS
        row = {
            "hash": _hash(secret), "kind": kind, "user": user.name, "label": label[:64], "created_at": now(),
            "csrf": secrets.token_urlsafe(32) if kind == "session" else "", "expires_at": later(3600 * lasts),
        }  # fmt: skip
        with self.engine.begin() as connection:
            connection.execute(delete(SECRETS).where(SECRETS.c.expires_at < now()))
            mine = select(SECRETS.c.hash).where(SECRETS.c.user == user.name, SECRETS.c.kind == "token")
            if kind == "token" and len(connection.execute(mine).all()) >= MOST_TOKENS:
                raise InputError(f"tokens of {user.name}", got=MOST_TOKENS, hint="end one that is not needed")
            connection.execute(insert(SECRETS).values(row))
        return secret

    def session(self, secret: str) -> Session | None:
        """Who a session or token is of; None for one that is unknown, over, or of a user who is kept out."""
        columns = (USERS.c.name, USERS.c.role, SECRETS.c.kind, SECRETS.c.csrf)
        query = select(*columns).join(USERS, USERS.c.name == SECRETS.c.user)
        query = query.where(
            SECRETS.c.hash == _hash(secret), SECRETS.c.expires_at >= now(), USERS.c.disabled.is_(False)
        )  # fmt: skip
        with self.engine.connect() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else Session(User(row.name, row.role), row.kind, row.csrf)

    def end(self, secret: str) -> None:
        """End a session or token."""
        with self.engine.begin() as connection:
            connection.execute(delete(SECRETS).where(SECRETS.c.hash == _hash(secret)))


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


class Audit:
    """Who saw and changed what, kept for good; without names of patients.

    Args:
        engine: Of the store's database.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def note(
        self, user: str, action: str, *, object: str = "", detail: Mapping[str, Any] | None = None, address: str = ""
    ) -> None:
        """Write one entry.

        Args:
            user: Who.
            action: What they did, for example ``"study.open"``.
            object: To what, by UID or id.
            detail: Plain JSON values; no name of a patient.
            address: From where.
        """
        row = {"at": now(), "user": user, "action": action, "object": object[:255], "address": address[:64]}
        with self.engine.begin() as connection:
            connection.execute(insert(AUDIT).values(**row, detail=None if detail is None else dict(detail)))

    def list(self, *, limit: int = 100, before: int | None = None) -> tuple[Mapping[str, Any], ...]:
        """The newest entries, those before an id alone if one is named."""
        query = select(AUDIT).order_by(AUDIT.c.id.desc()).limit(limit)
        if before is not None:
            query = query.where(AUDIT.c.id < before)
        with self.engine.connect() as connection:
            return tuple(dict(row) for row in connection.execute(query).mappings())
