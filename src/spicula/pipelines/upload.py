"""Files that a browser sends, written to a folder of the store as they come in, under names of our own."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path
from typing import IO, Any

from spicula.core.errors import InputError
from spicula.core.extras import require
from spicula.dicom.archive import is_zip

UPLOADS_FOLDER = "uploads"

FIELD = b"files"


class Upload:
    """Takes a body of ``multipart/form-data`` apart, piece by piece; nothing is held in memory.

    Args:
        folder: Of the store.
        content_type: Header of the request.
        most_bytes: Of the whole body.
        most_files: In it.

    Raises:
        InputError: It is not ``multipart/form-data``.
    """

    def __init__(self, folder: Path, content_type: str, most_bytes: int, most_files: int) -> None:
        multipart = require("python_multipart.multipart", extra="serve")
        kind, options = multipart.parse_options_header(content_type)
        if kind != b"multipart/form-data" or not options.get(b"boundary"):
            raise InputError("upload", got=repr(content_type[:60]), expected="multipart/form-data with files")
        self.folder = folder / UPLOADS_FOLDER / uuid.uuid4().hex
        self.files, self.bytes = 0, 0
        self._most_bytes, self._most_files = most_bytes, most_files
        self._header, self._value, self._name = b"", b"", b""
        self._file: IO[bytes] | None = None
        self._whole = False
        self._error = multipart.MultipartParseError
        self._parser: Any = multipart.MultipartParser(options[b"boundary"], {
            "on_part_begin": self._part_begins, "on_part_data": self._data, "on_part_end": self._part_ends,
            "on_header_field": self._header_field, "on_header_value": self._header_value,
            "on_header_end": self._header_ends, "on_headers_finished": self._headers_end, "on_end": self._ended,
        })  # fmt: skip
        self._options_of = multipart.parse_options_header

    def take(self, chunk: bytes) -> None:
        """Take the next piece of the body.

        Raises:
            InputError: It is broken, too large, or holds too many files.
        """
        self.bytes += len(chunk)
        if self.bytes > self._most_bytes:
            most = f"at most {self._most_bytes / 1e6:.0f} MB"
            raise InputError("upload", got="more bytes", expected=most, hint="send it in parts")
        try:
            self._parser.write(chunk)
        except self._error as error:
            raise InputError("upload", got="a broken body", hint=str(error)[:200]) from None

    def end(self) -> Path:
        """The body is whole.

        Returns:
            The zip, or the folder of the files.

        Raises:
            InputError: It is not whole, or holds no file.
        """
        if not self._whole:
            raise InputError("upload", got="a body that ends in the middle", hint="send it again")
        files = sorted(self.folder.iterdir()) if self.folder.is_dir() else []
        if not files:
            raise InputError("upload", got="no file", expected="a zip or DICOM files, in the field 'files'")
        if len(files) == 1 and is_zip(files[0]):
            return files[0]
        if any(is_zip(file) for file in files):
            raise InputError("upload", got="a zip among other files", hint="send each zip by itself")
        return self.folder

    def drop(self) -> None:
        """Forget what came."""
        if self._file is not None:
            self._file.close()
            self._file = None
        shutil.rmtree(self.folder, ignore_errors=True)

    def _part_begins(self) -> None:
        self._name = b""

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_ends(self) -> None:
        if self._header.lower() == b"content-disposition":
            _, options = self._options_of(self._value)
            self._name = options.get(b"name", b"") if b"filename" in options else b""
        self._header, self._value = b"", b""

    def _headers_end(self) -> None:
        if self._name != FIELD:
            return  # another field: its value is passed over
        if self.files >= self._most_files:
            raise InputError("upload", got="more files", expected=f"at most {self._most_files}", hint="send a zip")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._file = (self.folder / f"{self.files:06d}").open("wb")
        self.files += 1

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._file is not None:
            self._file.write(data[start:end])

    def _part_ends(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _ended(self) -> None:
        self._whole = True
