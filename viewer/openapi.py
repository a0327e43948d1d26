"""Write openapi.json, from which the viewer's types are made: python openapi.py, then npm run types."""

import json
from pathlib import Path
from typing import cast

from spicula.pipelines.workplace import Workplace
from spicula.web.app import make_app

app = make_app(cast("Workplace", None))  # routes are described without a store
text = json.dumps(app.openapi(), indent=1, sort_keys=True) + "\n"
Path(__file__).with_name("openapi.json").write_text(text, encoding="utf-8")
