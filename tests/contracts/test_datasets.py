"""What every module of ``datasets/`` that describes a data set keeps to."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from spicula.core.errors import InputError
from spicula.datasets.catalog import Check, Description, dataset, dataset_names

ROOT = Path(__file__).resolve().parent.parent.parent
STATES = {"ok", "warning", "broken", "missing"}


@pytest.fixture(params=dataset_names())
def name(request):
    return request.param


def test_the_data_sets_of_the_field_are_there():
    assert set(dataset_names()) >= {
        "lidc-idri",
        "luna16",
        "luna25",
        "deeplesion",
        "nlst",
        "lungx",
        "dlcs",
        "nodule-csv",
    }


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(InputError, match=r"got 'luna61', expected one of .*luna16"):
        dataset("luna61")


def test_it_is_described(name):
    about = dataset(name).DESCRIPTION
    assert isinstance(about, Description)
    for text in (about.title, about.contents, about.licence, about.size, about.url, about.citation):
        assert text.strip()
    assert about.layout


def test_a_page_says_how_to_get_it(name):
    page = ROOT / "docs" / "how-to" / f"get-{name}.md"
    if name == "nodule-csv":
        page = ROOT / "docs" / "reference" / "nodule-csv.md"
    text = page.read_text(encoding="utf-8")
    if name != "nodule-csv":
        assert f"spicula dataset verify {name}" in text
        assert "icence" in text


def test_cases_are_lazy_and_functions_take_a_root(name):
    module = dataset(name)
    assert inspect.isgeneratorfunction(module.verify) or "Iterator" in str(inspect.signature(module.verify))
    assert "Iterator" in str(inspect.signature(module.load_cases).return_annotation)
    assert next(iter(inspect.signature(module.load_cases).parameters)) == "root"


def test_an_empty_folder_is_reported_not_raised_by_verify(name, tmp_path):
    checks = list(dataset(name).verify(tmp_path))
    assert checks
    assert all(isinstance(check, Check) and check.state in STATES and check.message for check in checks)
    assert any(check.state in ("missing", "broken") for check in checks)


def test_an_empty_folder_is_one_clear_error_of_load_cases(name, tmp_path):
    with pytest.raises(InputError) as error:
        list(dataset(name).load_cases(tmp_path))
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize("function", ["load_cases", "verify"])
def test_no_folder_is_one_clear_error(name, function, tmp_path):
    with pytest.raises(InputError, match="absent"):
        list(getattr(dataset(name), function)(tmp_path / "absent"))
