"""Login at an OpenID Connect provider: authorization code flow with PKCE, state and nonce.

What a login needs between its two ends is one random secret in the browser's cookie. State, nonce and code verifier are
hashes of it: nothing is kept here, and who sees the state or the nonce in an address learns nothing of the others.

References:
    OpenID Connect Core 1.0, section 3.1 (authorization code flow) and 3.1.3.7 (validation of an ID token).
    RFC 7636 (PKCE), RFC 9207 (issuer in the answer), RFC 9700 (best current practice).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

from spicula.core.errors import InputError, OfflineError
from spicula.core.extras import require

CALLBACK = "/api/login/oidc/callback"

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512")
"""Of signatures of ID tokens: public keys alone, so that neither ``none`` nor a secret that others know is taken."""

TIMEOUT_S = 10.0
KEPT_S = 3600.0
"""So long the provider's description and keys are kept."""

ANEW_S = 60.0
"""Keys that are not known are looked up anew no more often than this."""

LEEWAY_S = 60
"""By so much the clocks may differ."""

LONGEST_SUBJECT = 255

FAILED_S = 5.0
"""So long nobody waits again for a provider that did not answer."""

MOST_AT_ONCE = 8
"""Codes that are traded at a time: a slow provider does not take all threads of the server."""

_LOCAL = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """A provider at which users log in, and what its users may do here.

    Args:
        issuer: Its address, exactly as it calls itself; https, but for one on this machine.
        client_id: What it knows this server as.
        client_secret_file: File that holds the secret it gave; None for a public client.
        redirect_base: Address of this server as its users type it, for example ``https://spicula.example``.
        role_claim: Claim of the ID token that names what a user may do; a dot leads into one within it. Empty for none.
        admin_values: Values of that claim that make an admin.
        create_users: Whether somebody who is not known here becomes a reader as they come.
        scopes: What is asked for.
    """

    issuer: str
    client_id: str
    client_secret_file: Path | None
    redirect_base: str
    role_claim: str = ""
    admin_values: Sequence[str] = ()
    create_users: bool = False
    scopes: Sequence[str] = ("openid", "profile", "email")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who somebody is at the provider, as its signed word says.

    Args:
        subject: Issuer, ``#``, and the name that never changes there; what a user is found by here.
        names: What they are called there, the most fitting first: good for a name here, no proof of anything.
        admin: Whether the role claim says so.
        roles: Whether there is a role claim to go by.
    """

    subject: str
    names: tuple[str, ...]
    admin: bool
    roles: bool


class Refused(Exception):
    """A login that the provider, or its answer, does not allow; the message is for the user."""


class Provider:
    """A provider: its description and keys, and the two ends of a login.

    Args:
        settings: Where it is and what its users may do.

    Raises:
        InputError: An address is not https, or the secret's file cannot be read.
    """

    def __init__(self, settings: Elsewhere) -> None:
        self.settings = settings
        _require_https(settings.issuer, "issuer of OpenID Connect")
        _require_https(settings.redirect_base, "redirect_base of OpenID Connect")
        if not settings.client_id or "openid" not in settings.scopes:
            raise InputError("OpenID Connect", got="no client_id, or scopes without openid", expected="both")
        self._secret()
        self._client = require("authlib.integrations.requests_client", extra="serve")
        self._core = require("authlib.oidc.core", extra="serve")
        self._jwt, self._jws = require("joserfc.jwt", extra="serve"), require("joserfc.jws", extra="serve")
        self._jwk, self._errors = require("joserfc.jwk", extra="serve"), require("joserfc.errors", extra="serve")
        self._lock, self._trading = threading.Lock(), threading.BoundedSemaphore(MOST_AT_ONCE)
        self._failed: dict[str, float] = {}
        self._kept: dict[str, tuple[float, Mapping[str, Any]]] = {}

    def _secret(self) -> str | None:
        """The secret as the file has it now, so that it can be changed without a restart."""
        file = self.settings.client_secret_file
        if file is None:
            return None
        try:
            text = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            got = getattr(error, "strerror", None) or "no text"
            raise InputError("client_secret_file", got=got, expected="a file with the secret") from None
        if not text:
            raise InputError("client_secret_file", got="an empty file", expected="a file with the secret")
        return text

    def begin(self, secret: str) -> str:
        """Begin a login.

        Args:
            secret: 32 random bytes or more as text, which the browser keeps in a cookie.

        Returns:
            Address at the provider to go to.

        Raises:
            OfflineError: The provider cannot be reached, or is not what it was said to be.
        """
        described = self._described()
        with self._session() as session:
            address, _ = session.create_authorization_url(
                described["authorization_endpoint"], state=_derived(secret, "state"), nonce=_derived(secret, "nonce"),
                code_verifier=_derived(secret, "verifier"),
            )  # fmt: skip
        return str(address)

    def end(self, secret: str, answer: Mapping[str, str]) -> Identity:
        """End a login: trade the code for an ID token and check it.

        Args:
            secret: From the browser's cookie.
            answer: The query with which the provider sent the browser back.

        Returns:
            Who it is.

        Raises:
            Refused: The answer is not to a login that this browser began, the provider refused, or its token is not
                sound.
            OfflineError: The provider cannot be reached.
        """
        if not secret or not hmac.compare_digest(_derived(secret, "state").encode(), answer.get("state", "").encode()):
            raise Refused("this login was not begun in this browser, or too long ago")
        if answer.get("iss", self.settings.issuer) != self.settings.issuer:
            raise Refused("the answer comes from another login server")
        if "error" in answer or not answer.get("code"):
            word = answer.get("error", "")
            known = word if word.isascii() and word.replace("_", "").isalpha() and len(word) < 40 else "no reason given"
            raise Refused(f"the login server says: {known}")
        token = self._traded(answer["code"], _derived(secret, "verifier"))
        return self._identity(self._checked(token, _derived(secret, "nonce")))

    def _traded(self, code: str, verifier: str) -> Mapping[str, Any]:
        described = self._described()
        if not self._trading.acquire(blocking=False):
            raise OfflineError("login server", got="more logins at a time than it answers", hint="try again in a while")
        try:
            with self._session() as session:
                token: Mapping[str, Any] = session.fetch_token(
                    described["token_endpoint"], grant_type="authorization_code", code=code, code_verifier=verifier,
                    redirect_uri=session.redirect_uri, allow_redirects=False,
                )  # fmt: skip
        except requests.RequestException as error:
            raise OfflineError("login server", got=type(error).__name__, hint="try again in a while") from None
        except Exception as error:  # Authlib's own, and what a crooked answer makes it stumble over
            raise Refused(f"the login server does not take the code ({_word(error)})") from None
        finally:
            self._trading.release()
        if not isinstance(token.get("id_token"), str):
            raise Refused("the login server gave no ID token")
        return token

    def _checked(self, token: Mapping[str, Any], nonce: str) -> Mapping[str, Any]:
        """The claims of an ID token whose signature, issuer, audience, times and nonce are right."""
        options = {
            "iss": {"essential": True, "value": self.settings.issuer},
            "aud": {"essential": True, "value": self.settings.client_id},
            "sub": {"essential": True}, "exp": {"essential": True}, "nonce": {"essential": True},
        }  # fmt: skip
        known = {
            "nonce": nonce, "client_id": self.settings.client_id, "access_token": token.get("access_token"),
        }  # fmt: skip
        try:
            signed = self._verified(token["id_token"])
            claims: Mapping[str, Any] = self._core.CodeIDToken(signed.claims, signed.header, options, known)
            claims.validate(leeway=LEEWAY_S)  # type: ignore[attr-defined]
        except OfflineError:
            raise
        except Exception as error:  # whatever a crooked token makes the libraries stumble over
            raise Refused(f"the login server's ID token is not sound ({_word(error)})") from None
        return claims

    def _verified(self, text: str) -> Any:
        """An ID token with a signature by the provider; keys that are not known are looked up anew."""
        registry = self._jws.JWSRegistry(algorithms=ALGORITHMS, strict_check_header=False)

        def decoded(anew: bool) -> Any:
            keys = self._jwk.KeySet.import_key_set(self._keys(anew=anew))
            return self._jwt.decode(text, key=keys, registry=registry)

        try:
            return decoded(anew=False)
        except (self._errors.InvalidKeyIdError, self._errors.BadSignatureError):
            return decoded(anew=True)

    def _identity(self, claims: Mapping[str, Any]) -> Identity:
        subject = f"{self.settings.issuer}#{claims['sub']}"
        if not isinstance(claims["sub"], str) or len(subject) > LONGEST_SUBJECT or not subject.isprintable():
            raise Refused("the login server's name for you is no name, or too long")
        names = tuple(str(claims[name]) for name in ("preferred_username", "email") if claims.get(name))
        found: Any = claims if self.settings.role_claim else None
        for step in self.settings.role_claim.split("."):
            found = found.get(step) if isinstance(found, Mapping) else None
        values = [found] if isinstance(found, str) else found if isinstance(found, list) else []
        admin = any(value in self.settings.admin_values for value in values if isinstance(value, str))
        return Identity(subject, names, admin, bool(self.settings.role_claim))

    def _described(self) -> Mapping[str, Any]:
        """The provider's description of itself."""
        found = self._had(f"{self.settings.issuer.rstrip('/')}/.well-known/openid-configuration")
        if found.get("issuer") != self.settings.issuer:
            raise OfflineError("login server", got="another issuer than was set", hint="tell your administrator")
        for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
            try:
                _require_https(str(found.get(name, "")), name, query=True)
            except InputError as error:
                raise OfflineError("login server", got=str(error), hint="tell your administrator") from None
        return found

    def _keys(self, *, anew: bool) -> Any:
        return self._had(str(self._described()["jwks_uri"]), longest_s=ANEW_S if anew else KEPT_S)

    def _had(self, address: str, *, longest_s: float = KEPT_S) -> Mapping[str, Any]:
        """A JSON object at an address, or the one that was there not long ago."""
        with self._lock:
            now = time.monotonic()
            at, kept = self._kept.get(address, (0.0, {}))
            if kept and now - at < longest_s:
                return kept
            if now - self._failed.get(address, -FAILED_S) < FAILED_S:
                raise OfflineError("login server", got="no answer", hint="try again in a while")
            try:
                self._kept[address] = (now, self._fetched(address))
            except OfflineError:
                self._failed[address] = time.monotonic()
                raise
            return self._kept[address][1]

    def _fetched(self, address: str) -> Mapping[str, Any]:
        try:
            with self._session() as session:
                response = session.get(address, withhold_token=True, allow_redirects=False)
                response.raise_for_status()
                found = response.json()
        except (requests.RequestException, ValueError) as error:
            raise OfflineError("login server", got=type(error).__name__, hint="try again in a while") from None
        if not isinstance(found, dict) or not found:
            raise OfflineError("login server", got="no JSON object", hint="tell your administrator")
        return found

    def _session(self) -> Any:
        methods = self._kept.get(f"{self.settings.issuer.rstrip('/')}/.well-known/openid-configuration", (0.0, {}))[1]
        secret, offered = self._secret(), methods.get("token_endpoint_auth_methods_supported")
        basic = not isinstance(offered, list) or "client_secret_basic" in offered
        way = "none" if secret is None else "client_secret_basic" if basic else "client_secret_post"
        return self._client.OAuth2Session(
            self.settings.client_id, secret, token_endpoint_auth_method=way, scope=" ".join(self.settings.scopes),
            redirect_uri=self.settings.redirect_base.rstrip("/") + CALLBACK, code_challenge_method="S256",
            default_timeout=TIMEOUT_S,
        )  # fmt: skip


def _derived(secret: str, purpose: str) -> str:
    """What a login's secret becomes for a purpose: 43 letters that tell nothing of the secret."""
    digest = hmac.digest(secret.encode("utf-8", "replace"), purpose.encode(), hashlib.sha256)
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _require_https(address: str, what: str, *, query: bool = False) -> None:
    try:
        parts = urlsplit(address)
        host = parts.hostname or ""
    except ValueError:
        parts, host = urlsplit(""), ""
    local = parts.scheme == "http" and host in _LOCAL
    odd = parts.fragment or "@" in parts.netloc or (parts.query and not query)
    if not host or not (parts.scheme == "https" or local) or odd:
        raise InputError(what, got=repr(address[:100]), expected="an https address")


def _word(error: Exception) -> str:
    """The kind of an error in a word, without what came from outside."""
    word = getattr(error, "error", "")
    known = isinstance(word, str) and word.isascii() and word.replace("_", "").isalpha() and len(word) < 40
    claim = getattr(error, "claim", "")
    named = f" {claim}" if isinstance(claim, str) and claim.isascii() and claim.replace("_", "").isalpha() else ""
    return (word if known else type(error).__name__) + named
