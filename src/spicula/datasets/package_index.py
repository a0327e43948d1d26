"""One file from the user's own package index: pip's settings are followed, nothing is built or run.

References:
    https://pip.pypa.io/en/stable/topics/configuration/ (files, environment, precedence).
    https://packaging.python.org/en/latest/specifications/simple-repository-api/
"""

from __future__ import annotations

import configparser
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from urllib.request import url2pathname

import requests
from pypi_simple import (
    PYPI_SIMPLE_ENDPOINT,
    NoSuchProjectError,
    ProjectPage,
    PyPISimple,
    UnsupportedContentTypeError,
    UnsupportedRepoVersionError,
)
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from spicula.core.bundle import sha256_of
from spicula.core.errors import OfflineError
from spicula.core.files import written_aside

_SECTIONS = ("global", "install", "download")
_FAILURES = (
    requests.RequestException,
    NoSuchProjectError,
    UnsupportedContentTypeError,
    UnsupportedRepoVersionError,
    OSError,
    ValueError,
)


@dataclass(frozen=True, slots=True)
class IndexSettings:
    """Where pip would look, and how it would connect.

    Args:
        indexes: Simple indexes (URLs, also ``file://``), in order.
        find_links: Folders, ``file://`` URLs or pages with links to files.
        cert: File of trusted certificates, empty for the default.
        client_cert: File with the client's certificate and key, empty if none.
        proxy: Proxy URL, empty for that of the environment.
        trusted_hosts: Hosts (with or without port) whose certificates are not checked.
        timeout_s: Seconds to wait for an answer.
    """

    indexes: tuple[str, ...]
    find_links: tuple[str, ...] = ()
    cert: str = ""
    client_cert: str = ""
    proxy: str = ""
    trusted_hosts: tuple[str, ...] = ()
    timeout_s: float = 15.0


def pip_settings(
    environment: Mapping[str, str] | None = None, *, config_files: list[Path] | None = None
) -> IndexSettings:
    """Read pip's settings as pip would: environment over ``[download]``, ``[install]`` and ``[global]`` of its files.

    Args:
        environment: Environment variables; the process's own if None.
        config_files: Configuration files, later ones win; pip's usual places if None.

    Returns:
        The settings; pip's default index where none is set.
    """
    env = os.environ if environment is None else environment
    values: dict[str, str] = {}
    found = {section: dict[str, str]() for section in _SECTIONS}
    for path in _config_files(env) if config_files is None else config_files:
        parser = configparser.RawConfigParser()
        try:
            parser.read(path, encoding="utf-8")
        except (configparser.Error, OSError, UnicodeDecodeError):
            continue
        for section in _SECTIONS:
            if parser.has_section(section):
                found[section] |= {key.replace("_", "-"): value for key, value in parser.items(section)}
    for section in _SECTIONS:
        values |= found[section]
    for name, value in env.items():
        if name.startswith("PIP_") and value.strip():
            values[name.removeprefix("PIP_").lower().replace("_", "-")] = value
    alone = values.get("no-index", "").strip().lower() in ("1", "true", "yes", "on", "y", "t")
    first = (values.get("index-url") or values.get("pypi-url") or PYPI_SIMPLE_ENDPOINT).strip()
    return IndexSettings(
        indexes=() if alone else (first, *values.get("extra-index-url", "").split()),
        find_links=tuple(values.get("find-links", "").split()),
        cert=values.get("cert", "").strip(),
        client_cert=values.get("client-cert", "").strip(),
        proxy=values.get("proxy", "").strip(),
        trusted_hosts=tuple(values.get("trusted-host", "").split()),
        timeout_s=_seconds(values.get("timeout") or values.get("default-timeout") or "15"),
    )


def _seconds(text: str) -> float:
    try:
        return max(float(text), 1.0)
    except ValueError:
        return 15.0


def _config_files(env: Mapping[str, str]) -> list[Path]:
    """pip's configuration files, the weakest first; the one that ``PIP_CONFIG_FILE`` names replaces the user's."""
    named = env.get("PIP_CONFIG_FILE", "")
    if named == os.devnull:
        return []
    home = Path(env.get("HOME") or Path.home())
    config_home = Path(env.get("XDG_CONFIG_HOME") or home / ".config")
    if sys.platform == "darwin":
        everywhere = [Path("/Library/Application Support/pip/pip.conf")]
        support = home / "Library" / "Application Support" / "pip"
        user = (support if support.is_dir() else config_home / "pip") / "pip.conf"
    else:
        shared = (env.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(os.pathsep)
        everywhere = [
            *(Path(folder) / "pip" / "pip.conf" for folder in reversed(shared) if folder),
            Path("/etc/pip.conf"),
        ]
        user = config_home / "pip" / "pip.conf"
    named_exists = bool(named) and Path(named).exists()
    users = [] if named_exists else [home / ".pip" / "pip.conf", user]
    return [*everywhere, *users, Path(sys.prefix) / "pip.conf", *([Path(named)] if named_exists else [])]


def fetch_file(project: str, filename: str, target: Path, *, sha256: str, settings: IndexSettings) -> None:
    """Bring one file of a project from the first place that has it, checked, whole or not at all.

    Args:
        project: Name of the project on the index.
        filename: The distribution's file name.
        target: Where it goes.
        sha256: Hash that it must have; a place that states another one, or gives other bytes, is passed over.
        settings: Where to look.

    Raises:
        OfflineError: No place gave it; the message has the reason of each, without credentials.
    """
    reasons = []
    with closing(_session(settings)) as session:
        for name, find in _places(project, filename, settings, session):
            try:
                url, stated = find()
                if stated and stated != sha256:
                    raise ValueError(f"states sha256 {stated}")
                with written_aside(target) as aside:
                    _copy(url, aside, session, settings.timeout_s)
                    found = sha256_of(aside)
                    if found != sha256:
                        raise ValueError(f"gave a file of sha256 {found}")
            except _FAILURES as error:
                reasons.append(f"{name} ({_reason(error)})")
            else:
                return
    raise OfflineError(
        f"{filename} could not be fetched from the package index",
        got="; ".join(reasons) or "no index and no find-links",
        expected=f"the file with sha256 {sha256}",
    )


Found = tuple[str, str | None]


def _places(
    project: str, filename: str, settings: IndexSettings, session: requests.Session
) -> Iterator[tuple[str, Callable[[], Found]]]:
    """Each place's name, without credentials, and how to find the file's address and stated sha256 there."""
    local = [place for place in settings.find_links if not _is_remote(place)]
    remote = [place for place in settings.find_links if _is_remote(place)]
    for place in local:
        yield without_credentials(place), lambda place=place: _in_folder(_local(place), filename)  # type: ignore[misc]
    for place in settings.indexes:
        yield without_credentials(place), lambda place=place: _in_index(place, project, filename, session, settings)  # type: ignore[misc]
    for place in remote:
        yield without_credentials(place), lambda place=place: _in_page(place, project, filename, session, settings)  # type: ignore[misc]


def _is_remote(place: str) -> bool:
    return urlsplit(place).scheme in ("http", "https")


def _local(place: str) -> Path:
    parts = urlsplit(place)
    return Path(url2pathname(parts.path)) if parts.scheme == "file" else Path(place).expanduser()


def _in_folder(folder: Path, filename: str) -> Found:
    if folder.is_file():
        page = ProjectPage.from_html("", folder.read_bytes(), base_url=folder.resolve().as_uri())
        return _link(page, filename)
    path = folder / filename
    if not path.is_file():
        raise ValueError("does not have it")
    return path.resolve().as_uri(), None


def _in_index(index: str, project: str, filename: str, session: requests.Session, settings: IndexSettings) -> Found:
    if _is_remote(index):
        client = PyPISimple(index, session=session)
        return _link(client.get_project_page(project, timeout=settings.timeout_s), filename)
    folder = _local(index) / project
    page = folder / "index.html"
    if not page.is_file():
        return _in_folder(folder, filename)
    base = folder.resolve().as_uri() + "/"
    return _link(ProjectPage.from_html(project, page.read_bytes(), base_url=base), filename)


def _in_page(place: str, project: str, filename: str, session: requests.Session, settings: IndexSettings) -> Found:
    response = session.get(place, timeout=settings.timeout_s)
    response.raise_for_status()
    return _link(ProjectPage.from_response(response, project), filename)


def _link(page: ProjectPage, filename: str) -> Found:
    for package in page.packages:
        if package.filename == filename:
            return package.url, (package.digests or {}).get("sha256")
    raise ValueError("does not have it")


def _copy(url: str, target: Path, session: requests.Session, timeout_s: float) -> None:
    if not _is_remote(url):
        shutil.copyfile(_local(url), target)
        return
    with session.get(url, stream=True, timeout=timeout_s) as response, target.open("wb") as stream:
        response.raise_for_status()
        for chunk in response.iter_content(1 << 20):
            stream.write(chunk)


def without_credentials(place: str) -> str:
    """A URL or path without user and password."""
    parts = urlsplit(place)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if parts.netloc else place


def _reason(error: Exception) -> str:
    """The gist of a failure; addresses, which may hold credentials, are left out."""
    if isinstance(error, NoSuchProjectError):
        return "does not have the project"
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"answered {error.response.status_code} {error.response.reason}"
    if isinstance(error, requests.exceptions.SSLError):
        return "its certificate is not trusted"
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    if isinstance(error, requests.RequestException):
        return "cannot be reached"
    return str(error) or type(error).__name__


class _HostCredentials(requests.auth.AuthBase):
    """User and password of an index's URL for every request to its host; else those of .netrc."""

    def __init__(self, places: tuple[str, ...]) -> None:
        self._known = {}
        for place in places:
            user, password = requests.utils.get_auth_from_url(place)
            if user or password:
                self._known[urlsplit(place).netloc.rpartition("@")[2]] = (user, password)

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        url = request.url or ""
        known = self._known.get(urlsplit(url).netloc.rpartition("@")[2]) or requests.utils.get_netrc_auth(url)
        return requests.auth.HTTPBasicAuth(*known)(request) if known else request


class _Session(requests.Session):
    """A session in which pip's certificates and trusted hosts win over those of the environment."""

    def __init__(self, settings: IndexSettings) -> None:
        super().__init__()
        self._settings = settings

    def merge_environment_settings(self, url, proxies, stream, verify, cert):  # type: ignore[no-untyped-def]
        """Join the settings of one request with those of the session and the environment."""
        merged = super().merge_environment_settings(url, proxies, stream, verify, cert)
        host = urlsplit(url)
        if {host.hostname, host.netloc.rpartition("@")[2]} & set(self._settings.trusted_hosts):
            merged["verify"] = False
        elif self._settings.cert:
            merged["verify"] = self._settings.cert
        return merged


def _session(settings: IndexSettings) -> requests.Session:
    session = _Session(settings)
    session.auth = _HostCredentials((*settings.indexes, *settings.find_links))
    if settings.client_cert:
        session.cert = settings.client_cert
    if settings.proxy:
        session.trust_env = False
        session.proxies = {"http": settings.proxy, "https": settings.proxy}
    adapter = HTTPAdapter(max_retries=Retry(total=2, backoff_factor=0.5, status_forcelist=(502, 503, 504)))
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return session
