"""The schema that the viewer's types are made from is the server's own."""

from __future__ import annotations

import json
from pathlib import Path

from spicula.web.app import make_app

SCHEMA = Path(__file__).parents[2] / "viewer" / "openapi.json"


def test_the_viewer_knows_the_api_as_it_is(workplace) -> None:
    hint = "python viewer/openapi.py && npm --prefix viewer run types"
    assert json.loads(SCHEMA.read_text(encoding="utf-8")) == json.loads(json.dumps(make_app(workplace).openapi())), hint
