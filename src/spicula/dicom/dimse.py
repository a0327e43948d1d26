"""What both ends of a DIMSE association share: pynetdicom set to be quiet and bounded, and how an instance comes in."""

from __future__ import annotations

import errno
import socket
import time
from contextlib import suppress
from functools import partial
from typing import Any

from pydicom.filewriter import write_file_meta_info
from pydicom.uid import UID

from spicula.core.errors import InputError
from spicula.core.extras import require
from spicula.dicom.inbox import Arrived, Inbox
from spicula.dicom.remote import is_uid

MAX_PDU_BYTES = 2**17
"""What we ask the other end to send at most in one PDU; larger ones are faster than pynetdicom's 16 KiB."""
LARGEST_PDU_BYTES = 16 * 2**20
"""What we take in one PDU from an end that does not heed it."""
MAX_OBJECT_BYTES = 2**30
"""The largest instance taken; it is held in memory until it is whole."""

SUCCESS, PENDING = 0x0000, (0xFF00, 0xFF01)
OUT_OF_SPACE, DOES_NOT_FIT, NOT_UNDERSTOOD, FAILED = 0xA700, 0xA900, 0xC000, 0x0110


def pynetdicom() -> Any:
    """The library, which shall not log what it is asked for or answers, and sends files as they are stored.

    Raises:
        MissingExtraError: It is not installed.
    """
    library = require("pynetdicom", extra="serve")
    config = library._config
    config.LOG_HANDLER_LEVEL = "none"
    config.LOG_REQUEST_IDENTIFIERS = config.LOG_RESPONSE_IDENTIFIERS = False  # patients' names
    config.STORE_SEND_CHUNKED_DATASET = True
    library.transport.AssociationSocket._shutdown_socket = shut
    return library


def shut(transport: Any) -> None:
    """Close a connection; pynetdicom 3.0.4 leaves it open where the other end was faster, or was never there."""
    connection = transport.socket
    if connection is not None:
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        connection.close()


def checked_ae_title(title: str, name: str) -> str:
    """Give an AE title back without spaces around it.

    Raises:
        InputError: It is empty, longer than 16 characters, or holds others than printable ASCII.
    """
    short = title.strip() if isinstance(title, str) else ""
    if not 0 < len(short) <= 16 or not short.isascii() or not short.isprintable() or "\\" in short:
        raise InputError(name, got=repr(title)[:60], expected="an AE title: 1 to 16 printable ASCII characters")
    return short


def transfer_syntaxes() -> list[str]:
    """All that an instance may come in, but deflated ones (which may inflate without end) and mere references."""
    names = {str(uid): syntax_name(uid) for uid in pynetdicom().ALL_TRANSFER_SYNTAXES}
    return [uid for uid, name in names.items() if "Deflated" not in name and "JPIP" not in name]


def guards(*, timeout_s: float, max_object_bytes: int) -> list[tuple[Any, ...]]:
    """Handlers that bound what the other end may do to us, to bind to an association.

    Without them pynetdicom reads whatever length a PDU claims (up to 4 GiB), gathers messages without end, and waits
    for the rest of a PDU without end.
    """
    events = pynetdicom().evt
    opened = partial(_guard, timeout_s=timeout_s, limit=max_object_bytes + 2**16)
    return [(events.EVT_CONN_OPEN, opened), (events.EVT_DIMSE_RECV, _message_ended)]


def _guard(event: Any, *, timeout_s: float, limit: int) -> None:
    transport = event.assoc.dul.socket
    transport.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    transport.socket.settimeout(timeout_s)
    transport.bytes_of_message = 0
    transport.recv = partial(_receive, transport, timeout_s=timeout_s, limit=limit)


def _message_ended(event: Any) -> None:
    event.assoc.dul.socket.bytes_of_message = 0


def _receive(transport: Any, size: int, *, timeout_s: float, limit: int) -> bytearray:
    """Read from the connection like pynetdicom, within bounds; breaking one closes the connection."""
    transport.bytes_of_message += size
    if size > LARGEST_PDU_BYTES or transport.bytes_of_message > limit:
        raise OSError(errno.EMSGSIZE, "more bytes than an instance may have")
    taken = bytearray()
    stop = time.monotonic() + 4 * timeout_s
    while len(taken) < size:
        piece = transport.socket.recv(min(size - len(taken), 2**16))
        if not piece:
            break
        taken += piece
        if time.monotonic() > stop:
            raise TimeoutError(errno.ETIMEDOUT, "a PDU that comes too slowly")
    return taken


def take(event: Any, inbox: Inbox, *, series_uid: str = "") -> tuple[int, Arrived | None, str]:
    """Store the instance of a C-STORE request.

    Args:
        event: The request.
        inbox: Where it goes.
        series_uid: The series that it must belong to, if that is known.

    Returns:
        The status to answer, what arrived (None unless the status is success) and why it did not.
    """
    try:
        return SUCCESS, _written(event, inbox, series_uid), ""
    except InputError as error:
        mismatch = error.expected is not None
        return DOES_NOT_FIT if mismatch else NOT_UNDERSTOOD, None, str(error)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        return OUT_OF_SPACE if full else FAILED, None, error.strerror or type(error).__name__
    except Exception as error:  # whatever a malformed request makes the libraries stumble over
        return NOT_UNDERSTOOD, None, type(error).__name__


def _written(event: Any, inbox: Inbox, series_uid: str) -> Arrived:
    request = event.request
    if request.DataSet is None:
        raise InputError("an instance", got="a request without a data set")
    content = request.DataSet.getbuffer()
    with inbox.aside(len(content) + 1024) as path:
        with path.open("wb") as file:
            file.write(b"\0" * 128 + b"DICM")
            write_file_meta_info(file, event.file_meta, enforce_standard=True)
            file.write(content)
        return inbox.keep(
            path,
            series_uid=series_uid,
            sop_instance_uid=str(request.AffectedSOPInstanceUID),
            sop_class_uid=str(request.AffectedSOPClassUID),
        )


def syntax_name(uid: str) -> str:
    """The name of a transfer syntax or class, or its UID."""
    return UID(uid, validation_mode=0).name if is_uid(uid) else repr(uid)
