"""Requests to one HTTP server: patient through its bad moments, and quiet about credentials and patients.

Messages name the address and the path, never the query (it may name a patient), a password or a token.
"""

from __future__ import annotations

import time
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from urllib.parse import SplitResult, quote, unquote, urlencode, urljoin, urlsplit, urlunsplit

import requests
import urllib3
from requests.auth import AuthBase

from spicula.core.errors import InputError, OfflineError
from spicula.dicom.multipart import BrokenTransfer

BUSY = frozenset({429, 502, 503, 504})
MAX_PAUSE_S = 30.0
MAX_REDIRECTS = 5
_CHUNK = 2**16
_PLAIN = "*?,:/@"
"""What a query may hold as it is. Orthanc 1.10 finds nothing for ``%2A``: it does not decode what plugins get."""


class HttpServer:
    """A server under one address.

    Args:
        url: Its address; a user and a password in it are taken out and used.
        user: For basic authentication, with ``password``.
        password: As above.
        token: A bearer token, instead.
        verify: Whether to check the certificate of https, or the file of the authority that signed it.
        timeout_s: For connecting, and for each wait for data.
        attempts: How often to ask where a server is busy or a connection breaks.

    Raises:
        InputError: The address is not one of http or https, or there are two kinds of credentials.
    """

    def __init__(
        self,
        url: str,
        *,
        user: str = "",
        password: str = "",
        token: str = "",
        verify: bool | str | Path = True,
        timeout_s: float = 30.0,
        attempts: int = 4,
    ) -> None:
        parts = _parts(url)
        user, password = user or unquote(parts.username or ""), password or unquote(parts.password or "")
        if user and token:
            raise InputError("credentials", got="a user and a token", expected="one of them")
        if user and ":" in user:
            raise InputError("user", got="a colon in it", expected="a name that basic authentication can send")
        host = parts.netloc.rpartition("@")[2]
        self.url = urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", ""))
        self.timeout_s, self.attempts = timeout_s, max(attempts, 1)
        self._header = f"Bearer {token}" if token else _basic(user, password) if user else ""
        if any(ord(letter) < 32 for letter in self._header):
            raise InputError("credentials", got="a line end in them", expected="plain text")
        self._verify = verify if isinstance(verify, bool) else str(verify)
        self._session = requests.Session()
        self._session.auth = _Credentials(self._header)

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    @contextmanager
    def asked(
        self,
        method: str,
        path: str,
        *,
        accept: str,
        params: Sequence[tuple[str, str]] = (),
        body: IO[bytes] | None = None,
        body_type: str = "",
        also: frozenset[int] = frozenset(),
    ) -> Iterator[requests.Response]:
        """Ask, again where the server is busy or cannot be reached, and refuse answers that are none.

        Args:
            method: GET or POST.
            path: Below the server's address.
            accept: The media type wanted.
            params: The query.
            body: What to send: a file, whose length goes along (never chunked).
            body_type: Its media type.
            also: Statuses beside 2xx that the caller understands.

        Yields:
            The answer, its body not read yet.

        Raises:
            InputError: The server refuses.
            OfflineError: It cannot be reached, or stays busy.
        """
        headers = {"Accept": accept, "Accept-Encoding": "identity"} | ({"Content-Type": body_type} if body_type else {})
        with self._patiently(method, f"{self.url}/{path}", params=params, headers=headers, body=body) as response:
            if not (response.ok or response.status_code in also):
                raise self._refusal(response, path)
            yield response

    def _patiently(
        self,
        method: str,
        url: str,
        *,
        params: Sequence[tuple[str, str]],
        headers: Mapping[str, str],
        body: IO[bytes] | None,
    ) -> requests.Response:
        attempt = 0
        while True:
            attempt += 1
            try:
                response = self._once(method, url, params=params, headers=headers, body=body)
            except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
                if attempt >= self.attempts or isinstance(error, requests.exceptions.SSLError):
                    raise self._unreachable(error) from None  # its text holds the query
                time.sleep(pause_s(attempt))
                continue
            if response.status_code not in BUSY or attempt >= self.attempts:
                return response
            response.close()
            time.sleep(pause_s(attempt, response.headers.get("Retry-After", "")))

    def _once(
        self,
        method: str,
        url: str,
        *,
        params: Sequence[tuple[str, str]],
        headers: Mapping[str, str],
        body: IO[bytes] | None,
    ) -> requests.Response:
        for _ in range(MAX_REDIRECTS):
            if body is not None:
                body.seek(0)
            query = urlencode(params, safe=_PLAIN, quote_via=quote)
            response = self._session.request(
                method, url, params=query, headers=dict(headers), data=body, stream=True,
                timeout=self.timeout_s, verify=self._verify, allow_redirects=False,
            )  # fmt: skip
            if not response.is_redirect:
                return response
            response.close()
            url, params = self._target(response, method), ()
        raise InputError(self.url, got=f"more than {MAX_REDIRECTS} redirects", expected="an answer")

    def _target(self, response: requests.Response, method: str) -> str:
        """Where a redirect leads, unless following it would show credentials to another or lose what is sent."""
        here, there = urlsplit(response.url), urlsplit(urljoin(response.url, response.headers["Location"]))
        name = f"{there.scheme}://{there.hostname}"
        if there.scheme not in ("http", "https"):
            raise InputError(self.url, got=f"a redirect to {there.scheme}", expected="http or https")
        same = (here.scheme, here.hostname, here.port) == (there.scheme, there.hostname, there.port)
        safer = here.hostname == there.hostname and there.scheme == "https"
        if self._header and not (same or safer):
            raise InputError(
                f"{self.url}: redirects to {name}, where the credentials do not belong",
                hint="give that address as the URL if you trust it",
            )
        if method != "GET" and response.status_code not in (307, 308):
            raise InputError(f"{self.url}: redirects what is sent, to {name}", hint="give the final address as the URL")
        return urlunsplit((there.scheme, there.netloc.rpartition("@")[2], there.path, there.query, ""))

    def _unreachable(self, error: Exception) -> OfflineError:
        if isinstance(error, requests.exceptions.SSLError):
            if "CERTIFICATE_VERIFY_FAILED" not in str(error):
                return OfflineError(f"{self.url}: https fails", hint="is it a server of https? else write http://")
            return OfflineError(
                f"{self.url}: its certificate cannot be checked",
                hint="give the file of the authority that signed it (verify='ca.pem'); verify=False trusts anyone",
            )
        if isinstance(error, requests.Timeout):
            return OfflineError(
                f"{self.url}: no answer within {self.timeout_s:g} s", hint="is the server up? raise timeout_s"
            )
        if isinstance(error, requests.exceptions.ChunkedEncodingError | urllib3.exceptions.ProtocolError):
            return OfflineError(f"{self.url}: the connection broke off")
        if isinstance(error, requests.ConnectionError):
            return OfflineError(
                f"{self.url}: cannot be reached ({_why(error)})",
                hint="check the address and the port, and that the server is up",
            )
        return OfflineError(f"{self.url}: cannot be asked ({type(error).__name__})")

    def _refusal(self, response: requests.Response, path: str) -> Exception:
        status = response.status_code
        what = f"{self.url}: answers {status} {response.reason or ''}".rstrip() + f" to {path}"
        if status in (401, 403):
            kind = "these credentials" if self._header else "requests without credentials"
            return InputError(f"{what}: it refuses {kind}", hint="check user and password, or the token")
        if status == 404:
            return InputError(
                f"{what}: nothing is there", hint="is the DICOMweb root in the URL? Orthanc: http://HOST:8042/dicom-web"
            )
        if status == 413:
            return InputError(f"{what}: too large at once", hint="send smaller batches (batch_bytes)")
        return OfflineError(what, hint="see the server's log") if status >= 500 else InputError(what)


class _Credentials(AuthBase):
    """Sets the header itself, or none: requests would else put a password of ``.netrc`` in its place."""

    def __init__(self, header: str) -> None:
        self._header = header

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._header:
            request.headers["Authorization"] = self._header
        return request


def _basic(user: str, password: str) -> str:
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode()


def pause_s(attempt: int, retry_after: str = "") -> float:
    """How long to wait after a failed attempt, counted from 1: doubled each time, or as long as the server says."""
    if retry_after.strip().isdigit():
        return min(float(retry_after), MAX_PAUSE_S)
    return min(0.25 * 2.0**attempt, MAX_PAUSE_S)


def pieces(response: requests.Response) -> Iterator[bytes]:
    """The body as it comes in.

    Raises:
        BrokenTransfer: It breaks off, or takes too long.
    """
    try:
        yield from response.iter_content(_CHUNK)
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
        raise BrokenTransfer(f"the transfer broke off ({type(error).__name__})") from None


def body_of(response: requests.Response, max_bytes: int) -> bytes:
    """A whole body, if it is not too large.

    Raises:
        InputError: It is larger.
        BrokenTransfer: It breaks off.
    """
    body = bytearray()
    for piece in pieces(response):
        body += piece
        if len(body) > max_bytes:
            raise InputError("answer", got="more bytes", expected=f"at most {max_bytes}", hint="ask for less at once")
    return bytes(body)


def _parts(url: str) -> SplitResult:
    """The parts of an address, which is not shown where it cannot be read: it may hold a password."""
    try:
        parts = urlsplit(url)
        fits = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        fits = False
    if not fits:
        raise InputError("url", got="another text", expected="http://HOST:PORT/PATH or https://HOST/PATH")
    if parts.query or parts.fragment:
        raise InputError("url", got="an address with a query", expected="the root of the DICOMweb services")
    return parts


def _why(error: BaseException) -> str:
    """The system's words for what failed, without the address that requests adds."""
    for _ in range(10):
        if isinstance(error, OSError) and error.strerror:
            return error.strerror
        inner = error.__cause__ or error.__context__
        if inner is None:
            break
        error = inner
    return type(error).__name__
