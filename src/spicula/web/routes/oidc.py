"""``/api/login/oidc``: both ends of a login at an OpenID Connect provider, for a browser that goes there and back.

The session's cookie is never sent with a step that another site began (``SameSite=Strict``), and the way back from the
provider is one. So the callback answers with a page of ours that goes on to ``/`` by itself: that step is ours.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from html import escape
from urllib.parse import urlsplit

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from spicula.core.errors import InputError, OfflineError
from spicula.pipelines.workplace import Workplace
from spicula.store.users import User
from spicula.web.access import Access, Attempts
from spicula.web.oidc import Identity, Provider, Refused
from spicula.web.routes.login import give_session
from spicula.web.services import Address, Place

router = APIRouter(prefix="/api/login/oidc", include_in_schema=False)

BEGUN_S = 600
"""So long somebody may take at the provider."""


@router.get("")
def begin(request: Request) -> Response:
    """Send the browser to the provider."""
    provider = _provider_of(request)
    if provider is None:
        return _nowhere()
    secret = secrets.token_urlsafe(32)
    try:
        address = provider.begin(secret)
    except OfflineError as error:
        return _page("The login server cannot be reached", str(error), 502)
    response = RedirectResponse(address, status_code=303)
    _keep_begun(request, response, secret)
    return response


@router.get("/callback")
def end(request: Request, place: Place, address: Address) -> Response:
    """Take the browser back from the provider, and begin its session."""
    provider = _provider_of(request)
    if provider is None:
        return _nowhere()
    attempts: Attempts = request.app.state.attempts
    key = f"elsewhere {address}"
    if attempts.wait_s(key) > 0:
        return _page("Too many attempts", "Wait a minute, then begin anew.", 429)
    identity = None
    try:
        identity = provider.end(request.cookies.get(_cookie(request), ""), dict(request.query_params))
        user = _user(place, identity, provider)
    except OfflineError as error:
        return _page("The login server cannot be reached", str(error), 502)
    except Refused as error:
        attempts.failed(key)
        subject = "" if identity is None else identity.subject
        detail = {"by": "oidc", "reason": str(error)}
        place.audit.note("", "login.refused", object=subject, detail=detail, address=address)
        response = _page("You are not logged in", f"{error}.", 403, subject=subject)
    else:
        place.audit.note(user.name, "login", detail={"by": "oidc"}, address=address)
        home = f"{urlsplit(provider.settings.redirect_base).path.rstrip('/')}/"
        response = _page("You are logged in", "Going on ...", 200, home=home, goes_on=True)
        give_session(response, place.users.begin(user), request.app.state.access)
    _keep_begun(request, response, "")
    return response


def _provider_of(request: Request) -> Provider | None:
    """The provider that is set up, where users log in at all."""
    access: Access = request.app.state.access
    provider: Provider | None = getattr(request.app.state, "elsewhere", None)
    return provider if access.users else None


def _user(place: Workplace, identity: Identity, provider: Provider) -> User:
    """The user here whom an identity belongs to, made as they come where that is set so.

    A name or mail address alone never leads to a user: who may choose theirs at the provider could choose another's.
    """
    user = place.users.with_subject(identity.subject)
    if user is not None:
        if user.role == "admin" and identity.roles and not identity.admin:
            raise Refused("you are an admin here, but no longer at the login server")
        return user
    if not provider.settings.create_users:
        raise Refused("nobody here has this identity; ask an administrator to add you")
    name = _name(identity)
    try:
        return place.users.add(name, role="admin" if identity.admin else "reader", subject=identity.subject)
    except InputError:
        user = place.users.with_subject(identity.subject)  # made in another window meanwhile
    if user is None:
        raise Refused("this identity is kept out, or its name is another user's; ask an administrator")
    return user


def _name(identity: Identity) -> str:
    """A name for a new user, of letters that a name may have."""
    for wanted in identity.names:
        name = re.sub(r"[^a-z0-9._@-]+", "-", wanted.lower())[:63].strip("-._@")
        if name:
            return name
    return f"user-{hashlib.sha256(identity.subject.encode()).hexdigest()[:12]}"


def _cookie(request: Request) -> str:
    """Name of the cookie of a login that is begun; by https one that no other host of the domain can set."""
    access: Access = request.app.state.access
    return "__Host-spicula_login" if access.secure else "spicula_login"


def _keep_begun(request: Request, response: Response, secret: str) -> None:
    """Have the browser keep the secret of a login, or forget it."""
    access: Access = request.app.state.access
    response.set_cookie(
        _cookie(request), secret, max_age=BEGUN_S if secret else 0, httponly=True, samesite="lax", secure=access.secure
    )


def _nowhere() -> Response:
    return _page("There is no login elsewhere", "It is not set up on this server.", 404)


def _page(
    title: str, text: str, status: int, *, subject: str = "", home: str = "/", goes_on: bool = False
) -> HTMLResponse:  # fmt: skip
    """A page of a sentence; no script, nothing from outside that is not escaped."""
    on = f'<meta http-equiv="refresh" content="0; url={escape(home)}">' if goes_on else ""
    who = f"<p>Your identity: <code>{escape(subject)}</code></p>" if subject else ""
    link = "Go on" if goes_on else "Back to the login"
    return HTMLResponse(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Spicula: {escape(title)}</title>{on}'
        f'<body><h1>{escape(title)}</h1><p>{escape(text)}</p>{who}<p><a href="{escape(home)}">{link}</a></p></body>'
        "</html>",
        status_code=status, headers={"Cache-Control": "no-store"},
    )  # fmt: skip
