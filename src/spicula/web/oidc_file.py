"""The file that names an OpenID Connect provider: TOML with the fields of :class:`spicula.web.oidc.Elsewhere`."""

from __future__ import annotations

import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

from spicula.core.errors import InputError
from spicula.web.oidc import Elsewhere

_KINDS: dict[str, tuple[type, str]] = {
    "issuer": (str, "a text"), "client_id": (str, "a text"), "client_secret_file": (str, "a path"),
    "redirect_base": (str, "a text"), "role_claim": (str, "a text"), "admin_values": (list, "a list of texts"),
    "create_users": (bool, "true or false"), "scopes": (list, "a list of texts"),
}  # fmt: skip
REQUIRED = ("issuer", "client_id", "redirect_base")


def load_elsewhere(path: Path) -> Elsewhere:
    """Read the file.

    Args:
        path: TOML; a relative ``client_secret_file`` lies beside it.

    Raises:
        InputError: It cannot be read, a field is lacking or unknown (the known ones are listed), or of another kind.
    """
    try:
        given: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path}", got=str(error), expected="TOML that names an OpenID Connect provider") from None
    known = [field.name for field in fields(Elsewhere)]
    for name in given:
        if name not in known:
            raise InputError(
                f"{path}: field {name[:40]!r}", got="an unknown one", expected=f"one of {', '.join(known)}"
            )
    for name in REQUIRED:
        if name not in given:
            raise InputError(f"{path}: field {name}", got="none", expected=_KINDS[name][1])
    for name, value in given.items():
        kind, what = _KINDS[name]
        texts = all(isinstance(one, str) for one in value) if isinstance(value, list) else True
        if not isinstance(value, kind) or not texts:
            raise InputError(f"{path}: field {name}", got=repr(value)[:60], expected=what)
    secret = given.pop("client_secret_file", None)
    return Elsewhere(client_secret_file=None if secret is None else path.parent / secret, **given)
