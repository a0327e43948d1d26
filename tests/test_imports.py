"""What `import spicula` and `spicula --help` may load, and that arrows point down."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "openvino", "pydicom", "highdicom", "SimpleITK", "scipy", "nibabel", "sklearn")


def loaded_after(code: str) -> set[str]:
    program = f"{code}\nimport sys; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    output = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    return set(output.split())


@pytest.mark.parametrize(
    "code", ["import spicula", "import spicula.core.finding, spicula.core.bundle", "import spicula.cli"]
)
def test_starting_loads_nothing_heavy(code: str) -> None:
    assert not loaded_after(code) & set(HEAVY)


def test_inference_needs_no_torch_and_no_sklearn() -> None:
    loaded = loaded_after("import spicula.pipelines.batch, spicula.pipelines.score, spicula.pipelines.info")
    assert not loaded & {"torch", "sklearn", "skimage", "pandas", "matplotlib"}


def test_every_public_name_resolves() -> None:
    import spicula

    assert len(spicula.__all__) <= 15
    for name in spicula.__all__:
        assert getattr(spicula, name).__name__ == name
    with pytest.raises(AttributeError, match="no_such_name"):
        spicula.no_such_name  # noqa: B018


@pytest.mark.parametrize("before", ["pass", "import spicula.explain.prompts", "from spicula.explain import chat"])
def test_explain_is_the_job_although_a_package_has_its_name(before: str) -> None:
    check = "assert explain is spicula.explain and explain.__module__ == 'spicula.pipelines.explain', explain"
    loaded_after(f"{before}\nimport spicula\nfrom spicula import explain\n{check}")
    loaded_after("import spicula\nspicula.explain\nfrom spicula.explain.prompts import PROMPTS")
