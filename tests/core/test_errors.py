import pytest

from spicula.core.errors import InputError, MissingExtraError, SpiculaError
from spicula.core.extras import require


def test_a_message_reads_what_got_expected_hint() -> None:
    error = InputError("series 1.2.3", got="1 slice", expected="3 or more", hint="send the whole series")
    assert str(error) == "series 1.2.3: got 1 slice, expected 3 or more. Hint: send the whole series"
    assert isinstance(error, SpiculaError)
    assert isinstance(error, ValueError)
    assert str(SpiculaError("alone")) == "alone"


def test_a_missing_extra_gives_the_install_line() -> None:
    assert require("json", extra="train").__name__ == "json"
    with pytest.raises(MissingExtraError, match=r"pip install 'spicula\[train\]'"):
        require("no_such_module_xyz", extra="train")
