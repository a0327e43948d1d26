"""Errors that say what was wrong, what was expected and what to do next."""

from __future__ import annotations

import errno


class SpiculaError(Exception):
    """Base of every error that Spicula raises on purpose.

    The message reads ``<what>: got X, expected Y. Hint: do Z``; parts that are not given are left out.

    Args:
        what: The thing that is wrong, naming the file, series or argument.
        got: What was found.
        expected: What would have been accepted.
        hint: What the user can do about it.

    Example:
        >>> str(SpiculaError("spacing", got=-1, expected="a positive number", hint="check the header"))
        'spacing: got -1, expected a positive number. Hint: check the header'
    """

    def __init__(self, what: str, *, got: object = None, expected: object = None, hint: str | None = None) -> None:
        self.what, self.got, self.expected, self.hint = what, got, expected, hint
        facts = [f"got {got}"] if got is not None else []
        if expected is not None:
            facts.append(f"expected {expected}")
        message = what + (": " + ", ".join(facts) if facts else "")
        if hint:
            message += f". Hint: {hint}"
        super().__init__(message)


class InputError(SpiculaError, ValueError):
    """An image, table or argument that cannot be used as it is."""


class GeometryError(InputError):
    """A place or a grid that makes no sense: outside the volume, singular, irregular."""


class BundleError(SpiculaError):
    """A bundle that is missing, incomplete or does not match its hashes."""


class MissingExtraError(SpiculaError, ImportError):
    """A feature whose optional packages are not installed."""


class OfflineError(SpiculaError, OSError):
    """Something must be fetched and the network or index cannot be reached."""


class SpiculaWarning(UserWarning):
    """Something odd that was tolerated; it is also kept on the result."""


def disk_error(error: BaseException) -> OSError | None:
    """The error of the operating system that an exception is or wraps; None if there is none.

    Libraries wrap a full disk or a missing right in errors of their own; the chain of causes is followed for these.
    Other errors of the operating system count only where they were not dealt with: where ``error`` itself is one.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return error
    seen: set[int] = set()
    current = error.__cause__ or error.__context__
    while current is not None and id(current) not in seen:
        if isinstance(current, OSError) and current.errno in _WRITING_FAILED:
            return current
        seen.add(id(current))
        current = current.__cause__ or current.__context__
    return None


_WRITING_FAILED = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO})
