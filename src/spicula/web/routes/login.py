"""``/api/login`` and what belongs to it: sessions, tokens, who one is."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from pydantic import BaseModel, Field

from spicula.pipelines.workplace import Workplace
from spicula.store.users import LONGEST_PASSWORD, SESSION_HOURS, User
from spicula.web.access import COOKIE, Access, Attempts, session_of, user_of
from spicula.web.limits import workplace_of

router = APIRouter(prefix="/api", tags=["login"])

Place = Annotated[Workplace, Depends(workplace_of)]
Asking = Annotated[User, Depends(user_of)]


class Login(BaseModel):
    """Name and password."""

    name: str = Field(max_length=64)
    password: str = Field(max_length=LONGEST_PASSWORD)


class Me(BaseModel):
    """Who asks, and what changes must repeat."""

    name: str
    role: str
    csrf: str


class NewToken(BaseModel):
    """What a token is for."""

    label: str = Field(default="", max_length=64)


class Token(BaseModel):
    """A token: shown once, never again."""

    token: str


@router.post("/login")
def login(given: Login, request: Request, response: Response, place: Place) -> Me:
    """Begin a session."""
    access: Access = request.app.state.access
    attempts: Attempts = request.app.state.attempts
    address = request.client.host if request.client else ""
    keys = (f"name {given.name.strip().lower()}", f"address {address}")
    wait = attempts.wait_s(*keys)
    if wait > 0:
        raise HTTPException(429, "too many attempts", headers={"Retry-After": str(int(wait) + 1)})
    user = place.users.with_password(given.name, given.password) if access.users else None
    if user is None:
        attempts.failed(*keys)
        place.audit.note("", "login.refused", address=address)
        raise HTTPException(401, "wrong name or password")
    secret = place.users.begin(user)
    session = place.users.session(secret)
    place.audit.note(user.name, "login", address=address)
    give_session(response, secret, access)
    return Me(name=user.name, role=user.role, csrf=session.csrf if session else "")


def give_session(response: Response, secret: str, access: Access) -> None:
    """Have a browser keep a session: out of reach of scripts, and never sent by a page of another site."""
    response.set_cookie(
        COOKIE, secret, max_age=int(SESSION_HOURS * 3600), httponly=True, samesite="strict", secure=access.secure
    )


@router.post("/logout", status_code=204)
def logout(request: Request, response: Response, user: Asking, place: Place) -> None:
    """End the session."""
    place.users.end(request.cookies.get(COOKIE, ""))
    place.audit.note(user.name, "logout")
    response.delete_cookie(COOKIE)


@router.get("/me")
def me(request: Request, user: Asking) -> Me:
    """Who one is."""
    session = session_of(request)
    return Me(name=user.name, role=user.role, csrf=session.csrf if session else "")


@router.post("/tokens", status_code=201)
def new_token(given: NewToken, user: Asking, place: Place, request: Request) -> Token:
    """Make a token for a program."""
    if not request.app.state.access.users:
        raise HTTPException(400, "without users nobody needs a token")
    secret = place.users.begin(user, kind="token", label=given.label)
    place.audit.note(user.name, "token.new", object=given.label)
    return Token(token=secret)
