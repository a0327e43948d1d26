"""Who may ask, and attacks that are refused."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from spicula.web.access import COOKIE, Access
from spicula.web.app import make_app

PASSWORD = "correct horse battery"
BASE = "http://127.0.0.1:8000"


@pytest.fixture
def desk(workplace) -> TestClient:
    return TestClient(make_app(workplace), base_url=BASE)


@pytest.fixture
def app(workplace):
    workplace.users.add("ada", role="admin", password=PASSWORD)
    workplace.users.add("bob", role="reader", password=PASSWORD)
    return make_app(workplace, access=Access(users=True, hosts=["pacs.example"]))


@pytest.fixture
def client(app) -> TestClient:
    return TestClient(app, base_url=BASE)


def logged_in(client: TestClient, name: str = "ada") -> dict[str, str]:
    answer = client.post("/api/login", json={"name": name, "password": PASSWORD})
    assert answer.status_code == 200
    return {"X-CSRF-Token": answer.json()["csrf"]}


def test_alone_on_a_machine_nobody_logs_in(desk) -> None:
    assert desk.get("/api/me").json() == {"name": "desk", "role": "admin", "csrf": ""}
    assert desk.get("/dicom-web/studies").json() == []
    assert desk.post("/api/login", json={"name": "desk", "password": PASSWORD}).status_code == 401


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "[::1", "localhost.evil"])
def test_another_name_of_the_host_is_refused(desk, host) -> None:
    answer = desk.get("/dicom-web/studies", headers={"Host": host})
    assert answer.status_code == 400
    assert "nosniff" in answer.headers["X-Content-Type-Options"]


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8000", "[::1]:8000", "LOCALHOST:1"])
def test_our_own_names_are_fine(desk, host) -> None:
    assert desk.get("/healthz", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9000"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
)
def test_another_page_changes_nothing(desk, headers) -> None:
    answer = desk.post("/dicom-web/studies", content=b"", headers=headers)
    assert answer.status_code == 403
    assert desk.get("/dicom-web/studies", headers=headers).status_code == 200  # the browser keeps the answer from it


def test_without_a_session_nothing_is_seen(client) -> None:
    for path in ("/dicom-web/studies", "/dicom-web/studies/1.2/metadata", "/api/me", "/dicom-web/studies/1.2"):
        assert client.get(path).status_code == 401
    assert client.post("/dicom-web/studies", content=b"").status_code == 401
    assert client.get("/healthz").status_code == 200


def test_a_session_sees_and_must_repeat_its_secret_to_change(client) -> None:
    secret = logged_in(client)
    assert client.get("/dicom-web/studies").status_code == 200
    assert client.post("/api/tokens", json={"label": "x"}).status_code == 401
    assert client.post("/api/tokens", json={"label": "x"}, headers={"X-CSRF-Token": "wrong"}).status_code == 401
    assert client.post("/api/tokens", json={"label": "x"}, headers=secret).status_code == 201
    assert client.post("/api/logout", headers=secret).status_code == 204
    assert client.get("/dicom-web/studies").status_code == 401


def test_the_cookie_is_out_of_scripts_reach_and_of_other_sites(client) -> None:
    answer = client.post("/api/login", json={"name": "ada", "password": PASSWORD})
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "secure" not in cookie
    assert PASSWORD not in answer.text


def test_a_token_is_one_users_and_works_without_a_cookie(app, workplace) -> None:
    ada, bob = (TestClient(app, base_url=BASE) for _ in range(2))
    token = ada.post("/api/tokens", json={}, headers=logged_in(ada)).json()["token"]
    logged_in(bob, "bob")
    bearer = {"Authorization": f"Bearer {token}"}
    program = TestClient(app, base_url=BASE)
    assert program.get("/api/me", headers=bearer).json()["name"] == "ada"
    assert program.get("/api/me", headers={"Authorization": f"Bearer {token[:-1]}"}).status_code == 401
    forged = TestClient(app, base_url=BASE, cookies={COOKIE: token})
    assert forged.get("/api/me").status_code == 401  # a token is no session
    assert bob.get("/api/me").json()["name"] == "bob"
    workplace.users.disable("ada")
    assert program.get("/api/me", headers=bearer).status_code == 401


def test_guessing_passwords_is_slowed_down(client) -> None:
    for _ in range(5):
        assert client.post("/api/login", json={"name": "ada", "password": "x" * 12}).status_code == 401
    answer = client.post("/api/login", json={"name": "ada", "password": PASSWORD})
    assert answer.status_code == 429
    assert 0 < int(answer.headers["Retry-After"]) <= 61


def test_logins_are_on_record_without_passwords(client, workplace) -> None:
    client.post("/api/login", json={"name": "ada", "password": "x" * 12})
    logged_in(client)
    told = workplace.audit.list()
    assert [row["action"] for row in told] == ["login", "login.refused"]
    assert "x" * 12 not in str(told)
    assert PASSWORD not in str(told)


def test_a_name_of_ours_can_be_added(client) -> None:
    assert client.get("/healthz", headers={"Host": "pacs.example"}).status_code == 200
    assert client.get("/healthz", headers={"Host": "other.example"}).status_code == 400
