import json
from pathlib import Path

import pytest

from spicula.core.bundle import SHIPPED, load_bundle, shipped_bundles, write_bundle
from spicula.core.errors import BundleError

MANIFEST = {
    "name": "toy",
    "version": "1",
    "task": "risk",
    "preprocessing": {"spacing_mm": 1.0},
    "outputs": ["malignancy"],
    "card": {"licence": "Apache-2.0"},
}


def test_a_written_bundle_is_read_back_and_replaced(tmp_path: Path) -> None:
    first = write_bundle(tmp_path / "toy", MANIFEST, {"network.onnx": b"one"})
    assert load_bundle(tmp_path / "toy").fingerprint == first.fingerprint
    assert first.fingerprint.startswith("toy@")
    second = write_bundle(tmp_path / "toy", MANIFEST, {"network.onnx": b"two"})
    assert second.fingerprint != first.fingerprint
    assert [p.name for p in tmp_path.iterdir()] == ["toy"]


def test_the_card_may_be_reworded_without_a_new_identity(tmp_path: Path) -> None:
    one = write_bundle(tmp_path / "one", MANIFEST, {"a": b"x"})
    other = write_bundle(tmp_path / "other", {**MANIFEST, "card": {"licence": "reworded"}}, {"a": b"x"})
    assert one.fingerprint == other.fingerprint
    changed = write_bundle(tmp_path / "changed", {**MANIFEST, "preprocessing": {"spacing_mm": 2.0}}, {"a": b"x"})
    assert changed.fingerprint != one.fingerprint


def test_a_changed_file_is_refused(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "toy", MANIFEST, {"network.onnx": b"one"})
    (tmp_path / "toy" / "network.onnx").write_bytes(b"evil")
    with pytest.raises(BundleError, match="does not match its hash"):
        bundle.verify()
    with pytest.raises(BundleError, match="not listed"):
        bundle.file("other.onnx")
    (tmp_path / "toy" / "network.onnx").unlink()
    with pytest.raises(BundleError, match="is missing"):
        bundle.file("network.onnx")


@pytest.mark.parametrize(
    ("text", "message"), [("{", "not JSON"), ("[]", "lacks"), ('{"name": "x"}', "lacks"), (None, "format: got 99")]
)
def test_a_broken_manifest_says_so(tmp_path: Path, text: str | None, message: str) -> None:
    text = text or json.dumps({**MANIFEST, "files": {}, "format": 99})
    (tmp_path / "bundle.json").write_text(text)
    with pytest.raises(BundleError, match=message):
        load_bundle(tmp_path)


def test_an_unknown_name_lists_the_shipped_ones() -> None:
    with pytest.raises(BundleError, match="spicula bundle list"):
        load_bundle("no-such-bundle")


def test_every_shipped_bundle_is_whole_and_within_the_budget() -> None:
    for bundle in shipped_bundles():
        bundle.verify()
        for key in ("data", "licence", "metrics", "intended_use", "limits"):
            assert bundle.card.get(key), f"{bundle.name}: the card lacks {key}"
    size = {
        folder.name: sum(path.stat().st_size for path in folder.iterdir())
        for folder in SHIPPED.iterdir()
        if folder.is_dir()
    }
    assert size.pop("nodule-semantic") < 16_000_000
    assert size.pop("nodule-ssm", 0) < 44_000_000
    assert size.pop("nodule-search") + size.pop("lidc-index") < 10_000_000
    assert sum(size.values()) < 10_000_000
