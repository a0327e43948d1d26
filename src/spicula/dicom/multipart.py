"""Multipart messages as they stream in: each part goes to a file, and memory holds little more than a chunk."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from email.message import Message
from pathlib import Path

from spicula.core.errors import InputError

MAX_HEADER_BYTES = 16 * 2**10
"""Headers of one part, and what may stand before the first part."""

OpenAside = Callable[[], AbstractContextManager[Path]]
"""Gives a path for one part's bytes; whoever takes the part moves the file away before asking for the next."""


class BrokenTransfer(Exception):
    """The message ended before it was complete; asking again may help."""


def boundary_of(content_type: str) -> bytes:
    """The boundary of a multipart message.

    Raises:
        InputError: The type is another, or names no boundary.

    Example:
        >>> boundary_of('multipart/related; type="application/dicom"; boundary="a b"')
        b'a b'
    """
    message = Message()
    message["Content-Type"] = content_type
    boundary = message.get_param("boundary")
    if message.get_content_maintype() != "multipart" or not isinstance(boundary, str) or not 0 < len(boundary) <= 200:
        raise InputError("answer", got=content_type[:100], expected="multipart/related with a boundary")
    return boundary.encode("latin-1", "replace")


def parts_to_files(
    chunks: Iterable[bytes], content_type: str, *, aside: OpenAside, max_part_bytes: int, max_parts: int
) -> Iterator[Path]:
    """Write each part of a message to a file as the bytes come in.

    Args:
        chunks: The message's body, in pieces of any size.
        content_type: Its header, with the boundary.
        aside: Makes the files.
        max_part_bytes: A larger part is refused.
        max_parts: More parts are refused.

    Yields:
        The file of a part that is whole; it is removed after the next step unless it was moved.

    Raises:
        BrokenTransfer: The message ends without its closing boundary.
        InputError: It is not multipart, or goes beyond a bound.
    """
    stream = _Stream(chunks, boundary_of(content_type))
    stream.skip_preamble()
    for _ in range(max_parts):
        if stream.at_end():
            return
        length = _declared_length(stream.headers())
        with aside() as path:
            size = 0
            with path.open("wb") as file:
                for piece in stream.part():
                    size += len(piece)
                    if size > max_part_bytes:
                        raise InputError("a part of the answer", got="more bytes", expected=f"at most {max_part_bytes}")
                    file.write(piece)
            if length is not None and length != size:
                raise BrokenTransfer(f"a part of {size} bytes that says it has {length}")
            yield path
    if not stream.at_end():
        raise InputError("answer", got="more parts", expected=f"at most {max_parts}")


def _declared_length(headers: bytes) -> int | None:
    found = re.search(rb"(?im)^content-length:[ \t]*([0-9]{1,15})[ \t]*\r?$", headers)
    return int(found[1]) if found else None


class _Stream:
    """What has come in and is not used yet: never more than a chunk, a header and a boundary."""

    def __init__(self, chunks: Iterable[bytes], boundary: bytes) -> None:
        self._chunks, self._delimiter = iter(chunks), b"\r\n--" + boundary
        self._buffer = bytearray(b"\r\n")  # the first boundary may begin the message

    def _more(self) -> None:
        for chunk in self._chunks:
            if chunk:
                self._buffer += chunk
                return
        raise BrokenTransfer("the answer ends before its closing boundary")

    def _cut_to(self, mark: bytes, what: str) -> bytes:
        """Take what stands before a mark, and the mark itself, which must come soon."""
        start = 0
        while (at := self._buffer.find(mark, start)) < 0:
            if len(self._buffer) > MAX_HEADER_BYTES:
                raise InputError(f"{what} of the answer", expected=f"at most {MAX_HEADER_BYTES} bytes")
            start = max(len(self._buffer) - len(mark) + 1, 0)
            self._more()
        taken = bytes(self._buffer[:at])
        del self._buffer[: at + len(mark)]
        return taken

    def skip_preamble(self) -> None:
        self._cut_to(self._delimiter, "preamble")

    def at_end(self) -> bool:
        """After a boundary: whether it is the closing one; else go to the headers of the part that begins."""
        while len(self._buffer) < 2:
            self._more()
        if self._buffer.startswith(b"--"):
            return True
        if self._cut_to(b"\r\n", "boundary line").strip(b" \t"):
            raise InputError("answer", got="text after a boundary", expected="the end of the line")
        return False

    def headers(self) -> bytes:
        """The header lines of a part, which may be none."""
        while len(self._buffer) < 2:
            self._more()
        if self._buffer.startswith(b"\r\n"):
            del self._buffer[:2]
            return b""
        return self._cut_to(b"\r\n\r\n", "headers of a part")

    def part(self) -> Iterator[bytes]:
        """The bytes up to the next boundary, in pieces."""
        keep = len(self._delimiter) + 1
        while (at := self._next_boundary()) < 0:
            if len(self._buffer) > keep:
                yield bytes(self._buffer[:-keep])
                del self._buffer[:-keep]
            self._more()
        yield bytes(self._buffer[:at])
        del self._buffer[: at + len(self._delimiter)]

    def _next_boundary(self) -> int:
        """Where the next boundary begins; bytes that go on otherwise than one (``--``, space, line end) are content."""
        at = self._buffer.find(self._delimiter)
        while at >= 0:
            after = at + len(self._delimiter)
            if after >= len(self._buffer):
                return -1
            if self._buffer[after] in b"-\r \t":
                return at
            at = self._buffer.find(self._delimiter, at + 1)
        return -1
