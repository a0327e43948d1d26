import errno

import pytest

from spicula.core.errors import InputError, MissingExtraError, SpiculaError, disk_error
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


def wrapped(inner: Exception) -> Exception:
    try:
        try:
            raise inner
        except Exception as error:
            raise KeyError("a library's own words") from error
    except KeyError as error:
        return error


def test_a_full_disk_is_known_behind_a_librarys_own_error() -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    assert disk_error(full) is full
    assert disk_error(wrapped(full)) is full
    absent = FileNotFoundError(errno.ENOENT, "No such file")
    assert disk_error(absent) is absent
    assert disk_error(wrapped(absent)) is None
    assert disk_error(wrapped(ValueError("a bug"))) is None
