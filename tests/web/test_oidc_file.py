"""The file that names a provider."""

from __future__ import annotations

import pytest

from spicula.core.errors import InputError
from spicula.web.oidc import Elsewhere
from spicula.web.oidc_file import load_elsewhere

WHOLE = """
issuer = "https://login.example"
client_id = "spicula"
client_secret_file = "secret"
redirect_base = "https://ct.example"
role_claim = "groups"
admin_values = ["ct-admins"]
create_users = true
"""


def test_a_whole_file_is_read(tmp_path) -> None:
    path = tmp_path / "oidc.toml"
    path.write_text(WHOLE)
    assert load_elsewhere(path) == Elsewhere(
        "https://login.example", "spicula", tmp_path / "secret", "https://ct.example", "groups", ["ct-admins"], True
    )


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("issuer = ", "TOML"),
        ('issuer = "https://a"\nclient_id = "b"', "redirect_base: got none"),
        (WHOLE + "admins = 1\n", "one of issuer, client_id"),
        (WHOLE.replace("true", '"yes"'), "true or false"),
        (WHOLE.replace('["ct-admins"]', "[1]"), "a list of texts"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, text, error) -> None:
    path = tmp_path / "oidc.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=error.replace("[", r"\[")):
        load_elsewhere(path)


def test_no_file_is_an_error(tmp_path) -> None:
    with pytest.raises(InputError, match="No such file"):
        load_elsewhere(tmp_path / "none.toml")
