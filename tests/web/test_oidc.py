"""Logins at an OpenID Connect provider: a real one in a process of its own, and one that is crooked."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient
from joserfc import jws, jwt
from joserfc.jwk import OctKey, RSAKey

from spicula.core.errors import InputError
from spicula.web import oidc
from spicula.web.access import COOKIE, Access
from spicula.web.app import make_app
from spicula.web.oidc import CALLBACK, Elsewhere, Provider
from spicula.web.routes import oidc as routes

from .test_access import BASE, PASSWORD

START = "/api/login/oidc"
CLIENT = "spicula"
EVA = {"sub": "248289761001", "preferred_username": "Eva Müller", "roles": {"spicula": ["admins", "staff"]}}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def provider_process(port: int, *, seconds: int = 3600) -> Iterator[str]:
    """An independent provider; its keys are new with each start."""
    command = [sys.executable, "-m", "oidc_provider_mock", "-p", str(port), "-e", str(seconds), "-n", "true"]
    command += ["--user-claims", json.dumps(EVA)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            for _ in range(600):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                assert process.poll() is None
                time.sleep(0.05)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()
            process.wait(20)


@pytest.fixture(scope="module")
def issuer() -> Iterator[str]:
    with provider_process(free_port()) as address:
        yield address


def settings_of(address: str, **changes: Any) -> Elsewhere:
    return Elsewhere(**{
        "issuer": address, "client_id": CLIENT, "client_secret_file": None, "redirect_base": BASE, **changes,
    })  # fmt: skip


def app_with(workplace: Any, settings: Elsewhere | None, *, secret: str = "any", **access: Any) -> FastAPI:
    if settings is not None and secret:  # the independent provider wants one, whatever it is
        (workplace.folder / "secret").write_text(f"{secret}\n")
        settings = replace(settings, client_secret_file=workplace.folder / "secret")
    app = make_app(workplace, access=Access(**{"users": True, **access}))
    app.state.elsewhere = None if settings is None else Provider(settings)
    app.include_router(routes.router)
    app.router.routes.insert(0, app.router.routes.pop())
    return app


def client_of(app: FastAPI) -> TestClient:
    return TestClient(app, base_url=BASE, follow_redirects=False)


def begun(client: TestClient) -> str:
    """Where the server sends the browser."""
    answer = client.get(START)
    assert answer.status_code == 303, answer.text
    return str(answer.headers["location"])


def approved(address: str, sub: str = EVA["sub"]) -> str:
    """What the real provider answers once somebody said who they are: path and query of the callback."""
    answer = httpx.post(address, data={"sub": sub})
    assert answer.status_code == 302, answer.text
    back = urlsplit(answer.headers["location"])
    assert f"{back.scheme}://{back.netloc}{back.path}" == BASE + CALLBACK
    return f"{back.path}?{back.query}"


def refused(workplace: Any, client: TestClient, answer: httpx.Response, said: str) -> None:
    """Nobody is logged in, the page says why, it is on record."""
    assert answer.status_code == 403, answer.text
    assert said in answer.text
    assert "text/html" in answer.headers["content-type"]
    assert COOKIE not in answer.headers.get("set-cookie", "")
    assert client.get("/api/me").status_code == 401
    entry = workplace.audit.list(limit=1)[0]
    assert (entry["action"], entry["detail"]["by"]) == ("login.refused", "oidc")


# --- with the independent provider


def test_a_user_who_is_known_logs_in(workplace, issuer) -> None:
    workplace.users.add("eva", role="reader", subject=f"{issuer}#{EVA['sub']}")
    client = client_of(app_with(workplace, settings_of(issuer)))
    address = begun(client)
    query = parse_qs(urlsplit(address).query)
    assert (query["response_type"], query["code_challenge_method"]) == (["code"], ["S256"])
    assert {"state", "nonce", "code_challenge"} <= set(query)
    answer = client.get(approved(address))
    assert answer.status_code == 200, answer.text
    me = client.get("/api/me").json()
    assert (me["name"], me["role"]) == ("eva", "reader")
    assert client.post("/api/tokens", json={}, headers={"X-CSRF-Token": me["csrf"]}).status_code == 201
    entries = [(one["user"], one["action"], one["detail"]) for one in workplace.audit.list()]
    assert ("eva", "login", {"by": "oidc"}) in entries
    assert client.get("/api/about").json()["login_elsewhere"] is True


def test_cookies_are_bound_and_short_lived(workplace, issuer) -> None:
    workplace.users.add("eva", role="reader", subject=f"{issuer}#{EVA['sub']}")
    app = app_with(workplace, settings_of(issuer), secure=True)
    client = TestClient(app, base_url="https://127.0.0.1:8000", follow_redirects=False)
    answer = client.get(START)
    first = answer.headers["set-cookie"]
    assert first.startswith("__Host-spicula_login=")
    for part in ("HttpOnly", "Max-Age=600", "Path=/", "SameSite=lax", "Secure"):
        assert part in first
    assert "Domain" not in first
    secret = first.split("=", 1)[1].split(";")[0]
    assert secret not in answer.headers["location"]
    done = client.get(approved(answer.headers["location"]))
    session, forgotten = done.headers.get_list("set-cookie")
    assert session.startswith(f"{COOKIE}=")
    for part in ("HttpOnly", "SameSite=strict", "Secure"):
        assert part in session
    assert "Max-Age=0" in forgotten
    assert forgotten.startswith("__Host-spicula_login=")


def test_the_way_home_is_ours_alone(workplace, issuer) -> None:
    workplace.users.add("eva", role="reader", subject=f"{issuer}#{EVA['sub']}")
    client = client_of(app_with(workplace, settings_of(issuer)))
    for query in ("?next=https://evil.example", "?redirect_uri=https://evil.example/x"):
        answer = client.get(START + query)
        assert "evil" not in answer.headers["location"]
    done = client.get(approved(begun(client)) + "&next=//evil.example&redirect=https://evil.example")
    assert done.status_code == 200
    assert "evil" not in done.text
    assert 'content="0; url=/"' in done.text


def test_nobody_is_made_unless_that_is_set(workplace, issuer) -> None:
    client = client_of(app_with(workplace, settings_of(issuer)))
    answer = client.get(approved(begun(client), "<b>mallory</b>"))
    refused(workplace, client, answer, "ask an administrator")
    assert f"{issuer}#&lt;b&gt;mallory&lt;/b&gt;" in answer.text
    assert workplace.users.list() == ()
    assert workplace.audit.list(limit=1)[0]["object"] == f"{issuer}#<b>mallory</b>"


def test_who_comes_becomes_a_reader_where_that_is_set(workplace, issuer) -> None:
    client = client_of(app_with(workplace, settings_of(issuer, create_users=True)))
    assert client.get(approved(begun(client))).status_code == 200
    me = client.get("/api/me").json()
    assert (me["name"], me["role"]) == ("eva-m-ller", "reader")
    assert client.get(approved(begun(client))).status_code == 200  # the same user the next time
    assert client.get(approved(begun(client), "nick@example.org")).status_code == 200
    assert [one.name for one in workplace.users.list()] == ["eva-m-ller", "nick@example.org"]


@pytest.mark.parametrize(("values", "role"), [(("admins",), "admin"), (("others",), "reader"), ((), "reader")])
def test_only_the_role_claim_makes_an_admin(workplace, issuer, values, role) -> None:
    settings = settings_of(issuer, create_users=True, role_claim="roles.spicula", admin_values=values)
    client = client_of(app_with(workplace, settings))
    assert client.get(approved(begun(client))).status_code == 200
    assert client.get("/api/me").json()["role"] == role


def test_an_admin_who_is_none_there_any_more_is_refused(workplace, issuer) -> None:
    workplace.users.add("eva", role="admin", subject=f"{issuer}#{EVA['sub']}")
    settings = settings_of(issuer, role_claim="roles.spicula", admin_values=("others",))
    client = client_of(app_with(workplace, settings))
    refused(workplace, client, client.get(approved(begun(client))), "no longer at the login server")


def test_a_name_leads_to_no_user(workplace, issuer) -> None:
    workplace.users.add("eva-m-ller", role="admin", password=PASSWORD)
    client = client_of(app_with(workplace, settings_of(issuer, create_users=True)))
    refused(workplace, client, client.get(approved(begun(client))), "its name is another user")
    assert [(one.name, one.role) for one in workplace.users.list()] == [("eva-m-ller", "admin")]


def test_a_user_who_is_kept_out_stays_out(workplace, issuer) -> None:
    workplace.users.add("eva", role="reader", subject=f"{issuer}#{EVA['sub']}")
    app = app_with(workplace, settings_of(issuer, create_users=True))
    client = client_of(app)
    assert client.get(approved(begun(client))).status_code == 200
    workplace.users.disable("eva")
    assert client.get("/api/me").status_code == 401
    other = client_of(app)
    refused(workplace, other, other.get(approved(begun(other))), "kept out")
    assert workplace.users.list() == ()


def test_a_code_is_good_once_and_in_its_own_browser(workplace, issuer) -> None:
    workplace.users.add("eva", role="reader", subject=f"{issuer}#{EVA['sub']}")
    app = app_with(workplace, settings_of(issuer))
    client, thief = client_of(app), client_of(app)
    callback = approved(begun(client))
    refused(workplace, thief, thief.get(callback), "not begun in this browser")
    begun(thief)
    refused(workplace, thief, thief.get(callback), "not begun in this browser")
    cookies = dict(client.cookies)
    assert client.get(callback).status_code == 200
    again = TestClient(app, base_url=BASE, cookies=cookies)
    refused(workplace, again, again.get(callback), "invalid_grant")  # the provider takes no code twice


def test_another_state_or_none_is_refused(workplace, issuer) -> None:
    workplace.users.add("eva", role="reader", subject=f"{issuer}#{EVA['sub']}")
    client = client_of(app_with(workplace, settings_of(issuer)))
    code = parse_qs(urlsplit(approved(begun(client))).query)["code"][0]
    for query in ({"code": code, "state": "x"}, {"code": code}, {"code": code, "state": "ü\0\r\nX: y"}, {}):
        begun(client)
        refused(workplace, client, client.get(f"{CALLBACK}?{urlencode(query)}"), "not begun in this browser")


def test_guessing_is_slowed_down(workplace, issuer) -> None:
    client = client_of(app_with(workplace, settings_of(issuer)))
    answers = [client.get(f"{CALLBACK}?code=x&state=y") for _ in range(6)]
    assert [one.status_code for one in answers] == [403] * 5 + [429]
    assert client.post("/api/login", json={"name": "a", "password": PASSWORD}).status_code == 401  # not slowed by it


def test_who_says_no_there_is_told_so(workplace, issuer) -> None:
    client = client_of(app_with(workplace, settings_of(issuer)))
    state = parse_qs(urlsplit(begun(client)).query)["state"][0]
    answer = client.get(CALLBACK, params={"state": state, "error": "access_denied", "error_description": "<i>no</i>"})
    refused(workplace, client, answer, "access_denied")
    assert "<i>" not in answer.text
    state = parse_qs(urlsplit(begun(client)).query)["state"][0]
    answer = client.get(CALLBACK, params={"state": state, "error": "<script>alert(1)</script>"})
    refused(workplace, client, answer, "no reason given")


def test_an_expired_token_is_refused(workplace) -> None:
    with provider_process(free_port(), seconds=-oidc.LEEWAY_S - 5) as issuer:
        workplace.users.add("eva", role="reader", subject=f"{issuer}#{EVA['sub']}")
        client = client_of(app_with(workplace, settings_of(issuer)))
        refused(workplace, client, client.get(approved(begun(client))), "expired_token")


def test_keys_roll_over(workplace, monkeypatch) -> None:
    monkeypatch.setattr(oidc, "ANEW_S", 0.0)
    port = free_port()
    with provider_process(port) as issuer:
        workplace.users.add("eva", role="reader", subject=f"{issuer}#{EVA['sub']}")
        client = client_of(app_with(workplace, settings_of(issuer)))
        assert client.get(approved(begun(client))).status_code == 200
    with provider_process(port):  # new keys at the old address
        assert client.get(approved(begun(client))).status_code == 200
    answer = client.get(f"{CALLBACK}?{urlsplit(begun(client)).query}&code=x")
    assert answer.status_code == 502
    assert "cannot be reached" in answer.text


# --- off, or set up wrongly


def test_it_is_off_unless_set_up(workplace) -> None:
    for app in (app_with(workplace, None), app_with(workplace, settings_of("http://127.0.0.1:1"), users=False)):
        for path in (START, f"{CALLBACK}?code=x&state=y"):
            answer = client_of(app).get(path)
            assert (answer.status_code, "not set up" in answer.text) == (404, True)
            assert "set-cookie" not in answer.headers


def test_a_provider_that_does_not_answer_is_told(workplace) -> None:
    client = client_of(app_with(workplace, settings_of(f"http://127.0.0.1:{free_port()}")))
    for _ in range(2):
        answer = client.get(START)
        assert (answer.status_code, "cannot be reached" in answer.text) == (502, True)
        assert "Traceback" not in answer.text


@pytest.mark.parametrize(
    "changes",
    [
        {"issuer": "http://login.example"}, {"issuer": "https://login.example/?x=1"}, {"issuer": "login.example"},
        {"redirect_base": "http://spicula.example"}, {"redirect_base": "https://me@spicula.example"},
        {"client_id": ""}, {"scopes": ("email",)}, {"client_secret_file": Path("none")},
    ],
)  # fmt: skip
def test_settings_that_are_not_safe_are_refused(changes) -> None:
    with pytest.raises(InputError):
        Provider(replace(settings_of("https://login.example"), **changes))


def test_an_empty_secret_is_refused(tmp_path) -> None:
    (tmp_path / "secret").write_text("\n")
    with pytest.raises(InputError, match="empty"):
        Provider(settings_of("https://login.example", client_secret_file=tmp_path / "secret"))


# --- with a provider that is crooked


class Crooked(ThreadingHTTPServer):
    """A provider that checks what it is asked (PKCE, client, redirect) and answers with tokens as a test wants them."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.issuer = f"http://127.0.0.1:{self.server_port}"
        self.key, self.strangers = (RSAKey.generate_key(2048, {"kid": kid}) for kid in ("ours", "ours"))
        self.codes: dict[str, dict[str, str]] = {}
        self.claims: dict[str, Any] = {}
        self.description: dict[str, Any] = {}
        self.header: dict[str, Any] = {"alg": "RS256", "kid": "ours"}
        self.signer: Any = self.key
        self.answer: dict[str, Any] = {}
        self.status, self.secrets = 200, list[str]()

    def described(self) -> dict[str, Any]:
        addresses = {name: f"{self.issuer}/{name}" for name in ("authorization_endpoint", "token_endpoint", "jwks_uri")}
        return {"issuer": self.issuer, **addresses, **self.description}

    def authorize(self, address: str) -> str:
        """What the browser brings back."""
        asked = {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}
        code = hashlib.sha256(asked["nonce"].encode()).hexdigest()
        self.codes[code] = asked
        return f"{CALLBACK}?{urlencode({'code': code, 'state': asked['state']})}"

    def token(self, form: dict[str, str]) -> dict[str, Any]:
        asked = self.codes.pop(form.get("code", ""), None)
        if asked is None:
            return {"error": "invalid_grant"}
        digest = hashlib.sha256(form["code_verifier"].encode()).digest()
        assert base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == asked["code_challenge"]
        assert form["redirect_uri"] == asked["redirect_uri"]
        now = int(time.time())
        claims = {"iss": self.issuer, "aud": CLIENT, "sub": "7", "nonce": asked["nonce"], "iat": now, "exp": now + 300}
        claims = {name: value for name, value in {**claims, **self.claims}.items() if value is not None}
        if self.header["alg"] == "none":
            parts = (json.dumps(one).encode() for one in (self.header, claims))
            signed = ".".join(base64.urlsafe_b64encode(one).rstrip(b"=").decode() for one in parts) + "."
        else:
            registry = jws.JWSRegistry(algorithms=[self.header["alg"]])
            signed = jwt.encode(self.header, claims, self.signer, registry=registry)
        return {"access_token": "a", "token_type": "Bearer", "id_token": signed, **self.answer}


class Answers(BaseHTTPRequestHandler):
    server: Crooked

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        described = self.path == "/.well-known/openid-configuration"
        self.give(self.server.described() if described else {"keys": [self.server.key.as_dict(private=False)]})

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self.server.secrets.append(self.headers.get("Authorization", "") or form.get("client_secret", [""])[0])
        self.give(self.server.token({name: values[0] for name, values in form.items()}), self.server.status)

    def give(self, answer: dict[str, Any], status: int = 200) -> None:
        body = json.dumps(answer).encode()
        self.send_response(400 if "error" in answer else status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Location", f"{self.server.issuer}/elsewhere")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def crooked() -> Iterator[Crooked]:
    with Crooked() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def browser(workplace, crooked) -> TestClient:
    workplace.users.add("eva", role="reader", subject=f"{crooked.issuer}#7")
    return client_of(app_with(workplace, settings_of(crooked.issuer), secret=""))


def test_a_sound_token_of_the_same_provider_is_taken(crooked, browser) -> None:
    for audience in (CLIENT, [CLIENT]):
        crooked.claims = {"aud": audience}
        assert browser.get(crooked.authorize(begun(browser))).status_code == 200
    assert browser.get("/api/me").json()["name"] == "eva"


@pytest.mark.parametrize(
    ("claims", "said"),
    [
        ({"nonce": "another"}, "nonce"), ({"nonce": None}, "nonce"), ({"nonce": ["another"]}, "nonce"),
        ({"iss": "https://evil.example"}, "iss"), ({"iss": None}, "iss"),
        ({"aud": "another"}, "aud"), ({"aud": ["another", "third"]}, "aud"), ({"aud": None}, "aud"), ({"aud": []}, ""),
        ({"aud": [CLIENT, "another"]}, "azp"), ({"azp": "another"}, "azp"),
        ({"exp": 1}, "exp"), ({"exp": None}, "exp"), ({"exp": "tomorrow"}, "exp"), ({"iat": 2**40}, "iat"),
        ({"nbf": 2**40}, "nbf"), ({"at_hash": "AAAA"}, "at_hash"),
        ({"sub": None}, "sub"), ({"sub": ""}, "sub"), ({"sub": 7}, ""), ({"sub": "x" * 300}, "too long"),
        ({"sub": "7\0"}, "no name"), ({"sub": "8"}, "ask an administrator"),
    ],
)  # fmt: skip
def test_a_token_that_says_something_else_is_refused(workplace, crooked, browser, claims, said) -> None:
    crooked.claims = claims
    refused(workplace, browser, browser.get(crooked.authorize(begun(browser))), said)


def test_a_token_that_nobody_signed_is_refused(workplace, crooked, browser) -> None:
    crooked.header = {"alg": "none"}
    refused(workplace, browser, browser.get(crooked.authorize(begun(browser))), "not sound")


def test_a_token_signed_with_the_public_key_as_a_secret_is_refused(workplace, crooked, browser) -> None:
    crooked.header = {"alg": "HS256", "kid": "ours"}
    crooked.signer = OctKey.import_key(base64.urlsafe_b64encode(crooked.key.as_pem(private=False)).decode())
    refused(workplace, browser, browser.get(crooked.authorize(begun(browser))), "not sound")


@pytest.mark.parametrize("kid", ["ours", "unknown"])
def test_a_token_signed_by_a_stranger_is_refused(workplace, crooked, browser, kid) -> None:
    crooked.header, crooked.signer = {"alg": "RS256", "kid": kid}, crooked.strangers
    refused(workplace, browser, browser.get(crooked.authorize(begun(browser))), "not sound")


def test_a_key_that_a_token_brings_along_is_not_taken(workplace, crooked, browser) -> None:
    key = crooked.strangers
    crooked.header = {"alg": "RS256", "kid": "ours", "jwk": key.as_dict(private=False), "jku": crooked.issuer}
    crooked.signer = key
    refused(workplace, browser, browser.get(crooked.authorize(begun(browser))), "not sound")


@pytest.mark.parametrize(
    ("answer", "status", "said"),
    [
        ({"id_token": None}, 200, "no ID token"), ({"id_token": "x"}, 200, "not sound"),
        ({"id_token": "a.b.c"}, 200, "not sound"), ({"error": "invalid_client"}, 200, "invalid_client"),
        ({"error": "<b>"}, 200, "does not take the code"), ({"id_token": ["x"]}, 200, "no ID token"),
    ],
)  # fmt: skip
def test_an_answer_that_is_none_is_refused(workplace, crooked, browser, answer, status, said) -> None:
    crooked.answer, crooked.status = answer, status
    refused(workplace, browser, browser.get(crooked.authorize(begun(browser))), said)


def test_a_provider_that_breaks_down_in_the_middle_is_told(crooked, browser) -> None:
    crooked.status = 500
    answer = browser.get(crooked.authorize(begun(browser)))
    assert (answer.status_code, "cannot be reached" in answer.text) == (502, True)


@pytest.mark.parametrize(
    "description",
    [
        {"issuer": "https://evil.example"}, {"token_endpoint": "http://evil.example/token"}, {"jwks_uri": None},
        {"authorization_endpoint": "javascript:alert(1)"}, {"token_endpoint": "file:///etc/passwd"},
        {"jwks_uri": "https://user@evil.example"}, {"authorization_endpoint": "//[evil"},
    ],
)  # fmt: skip
def test_a_description_that_leads_elsewhere_is_refused(crooked, browser, description) -> None:
    crooked.description = description
    answer = browser.get(START)
    assert (answer.status_code, "cannot be reached" in answer.text) == (502, True)
    assert "location" not in answer.headers


def test_an_answer_of_another_issuer_is_refused(workplace, crooked, browser) -> None:
    answer = browser.get(crooked.authorize(begun(browser)) + "&iss=https%3A%2F%2Fevil.example")
    refused(workplace, browser, answer, "another login server")


@pytest.mark.parametrize("methods", [None, ["client_secret_post"]])
def test_the_secret_goes_to_the_provider_alone(workplace, crooked, methods) -> None:
    if methods is not None:
        crooked.description = {"token_endpoint_auth_methods_supported": methods}
    workplace.users.add("eva", role="reader", subject=f"{crooked.issuer}#7")
    client = client_of(app_with(workplace, settings_of(crooked.issuer), secret="s3cret"))
    answer = client.get(crooked.authorize(begun(client)))
    assert answer.status_code == 200
    basic = "Basic " + base64.b64encode(f"{CLIENT}:s3cret".encode()).decode()
    assert crooked.secrets == ["s3cret" if methods else basic]
    assert "s3cret" not in answer.text + str(answer.headers)
    assert "s3cret" not in str(workplace.audit.list())


# --- in a real browser


@contextmanager
def serving(app: FastAPI, port: int) -> Iterator[None]:
    running = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning", lifespan="off", ws="none"))
    thread = threading.Thread(target=running.run)
    thread.start()
    while not running.started and thread.is_alive():
        time.sleep(0.01)
    try:
        yield
    finally:
        running.should_exit = True
        thread.join()


def test_a_real_browser_comes_back_logged_in(workplace, issuer) -> None:
    """The provider is another site (another host), so that the session's cookie does not go with the way back."""
    chromium = shutil.which("chromium")
    if chromium is None:
        if os.environ.get("SPICULA_NO_SKIP"):
            pytest.fail("no chromium: apt-get install chromium")
        pytest.skip("apt-get install chromium")
    from playwright.sync_api import sync_playwright

    port = free_port()
    base = f"http://localhost:{port}"
    workplace.users.add("eva", role="reader", subject=f"{issuer}#{EVA['sub']}")
    app = app_with(workplace, settings_of(issuer, redirect_base=base))
    sent: list[tuple[str, bool]] = []

    @app.middleware("http")
    async def note(request: Any, then: Any) -> Any:
        sent.append((request.url.path, COOKIE in request.cookies))
        return await then(request)

    with serving(app, port), sync_playwright() as play:
        window = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        try:
            page = window.new_page()
            page.goto(base + START)
            assert page.url.startswith(issuer)
            page.get_by_role("button", name=EVA["sub"]).click()
            page.wait_for_url(f"{base}/")
            assert page.evaluate("fetch('/api/me').then(answer => answer.json())")["name"] == "eva"
            assert page.evaluate("document.cookie") == ""
            assert sent.index((CALLBACK, False)) < sent.index(("/", True)) < sent.index(("/api/me", True))
            page.goto(issuer)  # a step that another site begins goes without the cookie
            page.evaluate(f"location = '{base}/healthz'")
            page.wait_for_url(f"{base}/healthz")
            assert ("/healthz", False) in sent
        finally:
            window.close()
