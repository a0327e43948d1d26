"""The archives (PACS) that a store exchanges studies with, by name: ``archives.toml`` in its folder.

Passwords and tokens stand in files of their own or in environment variables; one that stands in ``archives.toml``
itself is warned of where others may read that file.
"""

from __future__ import annotations

import os
import re
import tomllib
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

from spicula.core.errors import InputError, SpiculaWarning
from spicula.dicom.dimse import checked_ae_title
from spicula.dicom.pacs import Pacs
from spicula.dicom.web import DicomWeb

FILE = "archives.toml"

Way: TypeAlias = Literal["dicomweb", "dimse"]
Permission: TypeAlias = Literal["pull", "send"]

_BOTH = {"pull": bool, "send": bool}
_WEB = {
    "url": str, "user": str, "verify": (bool, str), "password": str, "password_file": str, "password_env": str,
    "token": str, "token_file": str, "token_env": str,
}  # fmt: skip
_DIMSE = {
    "host": str, "port": int, "called_aet": str, "calling_aet": str, "move_aet": str, "move_port": int,
    "move_host": str,
}  # fmt: skip
_NAME = re.compile(r"[A-Za-z0-9_-]{1,32}")
_KINDS = {str: "a text", int: "a whole number", bool: "true or false", (bool, str): "true, false or a file"}


@dataclass(frozen=True, slots=True)
class Secret:
    """A password or a token, or where it is read when it is needed.

    Args:
        value: Itself.
        file: Of which the first line is it.
        variable: Environment variable that holds it.
    """

    value: str = field(default="", repr=False)
    file: Path | None = None
    variable: str = ""

    def read(self) -> str:
        """Read it.

        Raises:
            InputError: The file or the variable is not there, or empty.
        """
        if self.variable:
            value = os.environ.get(self.variable, "")
            if not value:
                raise InputError(f"environment variable {self.variable}", got="nothing", expected="a password or token")
            return value
        if self.file is None:
            return self.value
        try:
            lines = self.file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "bytes that are no text"
            raise InputError(str(self.file), got=why, expected="a file with a password or token") from None
        if not lines or not lines[0].strip():
            raise InputError(str(self.file), got="an empty first line", expected="a password or token")
        _warn_if_open(self.file)
        return lines[0].strip()


@dataclass(frozen=True, slots=True)
class Archive:
    """One archive, by DICOMweb or by DIMSE.

    Args:
        name: As commands name it.
        pull: Whether studies may be brought in from it.
        send: Whether results may be sent to it.
        url: DICOMweb: the root of its services. Empty for DIMSE.
        user: DICOMweb: for basic authentication.
        password: Its password, or where it is found.
        token: A bearer token instead, or where it is found.
        verify: Whether to check the certificate of https, or the file of the authority that signed it.
        host: DIMSE: its address.
        port: Its port.
        called_aet: Its AE title.
        calling_aet: Ours.
        move_aet: The AE title that it shall send to (C-MOVE), for archives that do not take C-GET.
        move_port: Where we listen under ``move_aet`` meanwhile; 0 where ``spicula listen`` does.
        move_host: The address we listen on.
    """

    name: str
    pull: bool = False
    send: bool = False
    url: str = ""
    user: str = ""
    password: Secret | None = None
    token: Secret | None = None
    verify: bool | Path = True
    host: str = ""
    port: int = 0
    called_aet: str = ""
    calling_aet: str = "SPICULA"
    move_aet: str = ""
    move_port: int = 0
    move_host: str = "0.0.0.0"

    @property
    def way(self) -> Way:
        """How it is spoken to; also the origin of what is pulled from it."""
        return "dicomweb" if self.url else "dimse"

    @property
    def address(self) -> str:
        """For people."""
        return self.url or f"{self.called_aet} at {self.host}:{self.port}"


def load_archives(source: Path) -> Mapping[str, Archive]:
    """Read the archives of a store.

    Args:
        source: The store's folder, in which ``archives.toml`` may be missing, or such a file.

    Returns:
        Archives by name, in the order of the file.

    Raises:
        InputError: The file named is not there, is no TOML, or says something that makes no sense.
    """
    file = archives_file(source)
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        if file != source:
            return MappingProxyType({})
        raise InputError(str(file), got="nothing there", expected="a file of archives") from None
    except OSError as error:
        raise InputError(str(file), got=error.strerror, expected="a file of archives") from None
    try:
        tables = tomllib.loads(content.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        got = str(error) if isinstance(error, tomllib.TOMLDecodeError) else "bytes that are no UTF-8"
        raise InputError(str(file), got=got, expected="TOML: a table [NAME] for each archive") from None
    return MappingProxyType({name: _archive(file, name, table) for name, table in tables.items()})


def archives_file(source: Path) -> Path:
    """The file of a store's folder, or the file that is named."""
    return source if source.suffix == ".toml" else source / FILE


def archive_named(source: Path, name: str, *, may: Permission | None = None) -> Archive:
    """One archive.

    Args:
        source: As for :func:`load_archives`.
        name: As the file names it.
        may: What must be allowed.

    Raises:
        InputError: As for :func:`load_archives`; there is none of this name, or it does not allow that.
    """
    known = load_archives(source)
    file = archives_file(source)
    if name not in known:
        raise InputError(
            f"archive {name[:40]!r}", got="none of this name", expected=f"one of {', '.join(known) or '(none yet)'}",
            hint=f"write it into {file}",
        )  # fmt: skip
    archive = known[name]
    if may is not None and not getattr(archive, may):
        hint = f"write {may} = true under [{name}] in {file}"
        raise InputError(f"archive {name}: does not allow to {may}", hint=hint)
    return archive


@contextmanager
def opened(archive: Archive, *, max_results: int = 100_000) -> Iterator[DicomWeb | Pacs]:
    """What speaks to an archive.

    Args:
        archive: Which.
        max_results: More matches than this are refused.

    Raises:
        InputError: Its password or token cannot be read.
    """
    if archive.way == "dimse":
        yield Pacs(
            archive.host, archive.port, archive.called_aet, calling_ae_title=archive.calling_aet,
            max_results=max_results,
        )  # fmt: skip
        return
    password = archive.password.read() if archive.password else ""
    token = archive.token.read() if archive.token else ""
    page = min(max_results, 200)
    with DicomWeb(
        archive.url, user=archive.user, password=password, token=token, verify=archive.verify, page_size=page,
        max_results=max_results,
    ) as client:  # fmt: skip
        yield client


def _archive(file: Path, name: str, table: Any) -> Archive:
    where = f"{file}: [{name[:40]}]"
    if _NAME.fullmatch(name) is None:
        raise InputError(where, got="that name", expected="at most 32 letters, digits, _ and -")
    if not isinstance(table, dict):
        raise InputError(f"{file}: {name}", got="a value", expected=f"a table [{name}]")
    _check_keys(where, table)
    return _web(file, where, name, table) if "url" in table else _dimse(where, name, table)


def _check_keys(where: str, table: Mapping[str, Any]) -> None:
    known: dict[str, Any] = {**_BOTH, **_WEB, **_DIMSE}
    for key, value in table.items():
        if key not in known:
            raise InputError(f"{where}: key {key[:40]!r}", got="none that is known", expected=", ".join(known))
        kinds = known[key]
        if not isinstance(value, kinds) or (kinds is int and isinstance(value, bool)):
            raise InputError(f"{where}: {key}", got=f"a {type(value).__name__}", expected=_KINDS[kinds])
    web, dimse = ([key for key in table if key in keys] for keys in (_WEB, _DIMSE))
    if web and dimse:
        hint = "make two archives of it, one for each way"
        raise InputError(where, got=f"{web[0]} and {dimse[0]}", expected="DICOMweb (url) or DIMSE (host)", hint=hint)
    if "url" not in table and "host" not in table:
        hint = 'url = "https://HOST/dicom-web", or host, port and called_aet'
        raise InputError(where, got="neither url nor host", expected="one of them", hint=hint)


def _web(file: Path, where: str, name: str, table: Mapping[str, Any]) -> Archive:
    url, user = table["url"], table.get("user", "")
    password, token = (_secret(file, where, table, kind) for kind in ("password", "token"))
    if (password is None) != (not user):
        raise InputError(where, got="one of user and password", expected="both, or none")
    if password and token:
        raise InputError(where, got="a password and a token", expected="one of them")
    if "@" in url.split("//", 1)[-1].split("/", 1)[0]:
        raise InputError(f"{where}: url", got="a user in it", expected="user and password_file beside it")
    try:
        DicomWeb(url).close()
    except InputError as error:
        raise InputError(f"{where}: {error.what}", got=error.got, expected=error.expected) from None
    verify = table.get("verify", True)
    if isinstance(verify, str):
        verify = file.parent / verify
        if not verify.is_file():
            raise InputError(f"{where}: verify", got=f"{verify}, which is no file", expected="the authority's PEM file")
    allowed = {key: table.get(key, False) for key in _BOTH}
    return Archive(name, url=url, user=user, password=password, token=token, verify=verify, **allowed)


def _secret(file: Path, where: str, table: Mapping[str, Any], kind: str) -> Secret | None:
    given = [key for key in (kind, f"{kind}_file", f"{kind}_env") if key in table]
    if len(given) > 1:
        raise InputError(where, got=" and ".join(given), expected="one of them")
    if not given or not table[given[0]]:
        return None
    value = table[given[0]]
    if given[0].endswith("_file"):
        return Secret(file=file.parent / value)
    if given[0].endswith("_env"):
        return Secret(variable=value)
    _warn_if_open(file)
    return Secret(value)


def _warn_if_open(file: Path) -> None:
    if file.stat().st_mode & 0o077:
        warnings.warn(
            f"{file} holds a password or token and others may read it. Hint: chmod 600 {file}", SpiculaWarning,
            stacklevel=2,
        )  # fmt: skip


def _dimse(where: str, name: str, table: Mapping[str, Any]) -> Archive:
    for key in ("host", "port", "called_aet"):
        if not table.get(key):
            raise InputError(f"{where}: {key}", got="none", expected="host, port and called_aet")
    for key in ("port", "move_port"):
        if key in table and not 0 < table[key] < 65536:
            raise InputError(f"{where}: {key}", got=table[key], expected="a number from 1 to 65535")
    for key in ("called_aet", "calling_aet", "move_aet"):
        if key in table:
            checked_ae_title(table[key], f"{where}: {key}")
    if "move_port" in table and "move_aet" not in table:
        hint = "the AE title under which the archive knows this machine and that port"
        raise InputError(where, got="move_port without move_aet", expected="both", hint=hint)
    return Archive(name, **table)
