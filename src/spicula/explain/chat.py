"""One request to an endpoint that speaks the chat completions contract: bounded, tried again, with clear errors."""

from __future__ import annotations

import email.utils
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.client import HTTPException
from urllib.parse import urlsplit

import requests
import urllib3
from requests.auth import AuthBase

from spicula.core.errors import InputError, OfflineError, SpiculaError

MOST_BYTES = 4_000_000
"""An answer that is longer is refused."""

LONGEST_WAIT_S = 60.0
"""Between two tries, whatever the server asks for."""

_TRANSIENT = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a language model is asked, and how patiently.

    Args:
        url: Base address, such as ``https://host/v1``, or the full one that ends in ``/chat/completions``.
        model: Name of the model, as the endpoint calls it.
        key: Bearer token; empty for an endpoint that needs none. Never shown.
        timeout_s: For one try, from the first byte sent to the last received.
        tries: At most.
        wait_s: Before the second try; doubled before each further one, unless the server names a time.
        temperature: Of the model; 0 for the likeliest answer.
    """

    url: str
    model: str
    key: str = field(default="", repr=False)
    timeout_s: float = 60.0
    tries: int = 4
    wait_s: float = 1.0
    temperature: float = 0.0

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            named = parts.scheme in ("http", "https") and bool(parts.hostname)
        except ValueError:
            named = False
        if not named:
            raise InputError("endpoint of the language model", got=_shown(self.url), expected="an http or https URL")
        if parts.username or parts.password or parts.query or parts.fragment:
            hint = "give the key apart from the address"
            raise InputError("endpoint of the language model", got="a URL with a secret or query in it", hint=hint)
        if not self.model.strip():
            raise InputError("language model", got="no name", expected="the name of a model of the endpoint")
        if not self.key.isprintable() or not self.key.isascii() or self.key != self.key.strip():
            raise InputError("key of the endpoint", got="spaces around it or odd characters", expected="one line")
        if not 0 < self.timeout_s < math.inf or self.tries < 1 or not 0 <= self.wait_s < math.inf:
            raise InputError("endpoint of the language model", expected="a timeout above 0 and at least one try")

    @property
    def address(self) -> str:
        """Where requests go."""
        base = self.url.rstrip("/")
        return base if base.endswith("/chat/completions") else f"{base}/chat/completions"


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer.

    Args:
        text: What the model said.
        tokens_in: Of the request, 0 if the endpoint does not say.
        tokens_out: Of the answer, likewise.
    """

    text: str
    tokens_in: int
    tokens_out: int


class _Try(Exception):
    """A try that failed but may be repeated.

    Args:
        reason: What happened.
        after_s: When the server wants to be asked again.
        answered: Whether it answered, but with something that makes no sense.
    """

    def __init__(self, reason: str, *, after_s: float | None = None, answered: bool = False) -> None:
        super().__init__(reason)
        self.after_s, self.answered = after_s, answered


class _Bearer(AuthBase):
    """Sets the header itself: requests would else put a password of ``.netrc`` in its place."""

    def __init__(self, key: str) -> None:
        self.key = key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self.key:
            request.headers["Authorization"] = f"Bearer {self.key}"
        return request


def post_chat(body: Mapping[str, object], *, endpoint: Endpoint, sleep: Callable[[float], None] = time.sleep) -> Reply:
    """Ask, and ask again after a while where the endpoint is busy, broken or silent.

    Args:
        body: The request: model, messages and settings.
        endpoint: Where.
        sleep: Waits some seconds.

    Returns:
        The answer.

    Raises:
        InputError: The endpoint refuses the request, or answers with something that is no chat completion.
        OfflineError: It cannot be reached or does not answer after all tries.
    """
    where = f"language model {endpoint.model} at {urlsplit(endpoint.address).netloc}"
    for number in range(endpoint.tries):
        try:
            return _ask(body, endpoint, where)
        except _Try as failed:
            last = failed
        if number + 1 < endpoint.tries:
            wait = endpoint.wait_s * 2**number if last.after_s is None else last.after_s
            sleep(min(wait, LONGEST_WAIT_S))
    what, reason = f"{where}, asked {endpoint.tries} times", str(last)
    if last.answered:
        raise InputError(what, got=reason, expected="a chat completion", hint="is the address that of its API?")
    raise OfflineError(what, got=reason, expected="an answer", hint=_HINT)


_HINT = "try later, or write the reports from templates, which needs no network"


def _ask(body: Mapping[str, object], endpoint: Endpoint, where: str) -> Reply:
    stop = time.monotonic() + endpoint.timeout_s
    try:
        response = requests.post(
            endpoint.address,
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json", "Accept": "application/json"},
            auth=_Bearer(endpoint.key),
            timeout=endpoint.timeout_s,
            allow_redirects=False,
            stream=True,
        )
        with closing(response):
            content = b"".join(_limited(response, stop, where))
    except (requests.Timeout, urllib3.exceptions.TimeoutError) as error:
        raise _Try(f"no whole answer within {endpoint.timeout_s:g} s") from error
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, HTTPException) as error:
        raise _Try(f"no connection that lasts ({type(error).__name__})") from error
    if response.status_code in _TRANSIENT:
        said = f"status {response.status_code}{_message(content, endpoint.key)}"
        raise _Try(said, after_s=_retry_after(response.headers.get("Retry-After", "")))
    if response.status_code != 200:
        raise _refusal(response.status_code, content, endpoint, where)
    return _reply(content)


def _limited(response: requests.Response, stop: float, where: str) -> Iterator[bytes]:
    """The body, as long as it keeps within the time and the size that one try has."""
    size = 0
    while chunk := response.raw.read1(65536, decode_content=True):
        size += len(chunk)
        if size > MOST_BYTES:
            raise InputError(where, got=f"an answer of more than {MOST_BYTES} bytes", expected="a chat completion")
        if time.monotonic() > stop:
            raise requests.Timeout
        yield chunk


def _refusal(status: int, content: bytes, endpoint: Endpoint, where: str) -> SpiculaError:
    hints = {401: "check the key", 403: "check the key and its rights", 404: "check the address and the model's name"}
    hint = "name the address it redirects to" if 300 <= status < 400 else hints.get(status)
    said = f"status {status}{_message(content, endpoint.key)}"
    return InputError(where, got=said, expected="status 200", hint=hint)


def _message(content: bytes, key: str) -> str:
    """What the server says of its error, without the key and shortened; nothing where it does not say it as usual."""
    try:
        error = json.loads(content)["error"]
        said = str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
    words = " ".join((said.replace(key, "[key]") if key else said).split())
    return f" ({words[:200]})" if words else ""


def _retry_after(written: str) -> float | None:
    """Seconds that the server asks to wait, written as such or as a date."""
    text = written.strip()
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        try:
            when = email.utils.parsedate_to_datetime(text)
        except ValueError:
            return None
        when = when if when.tzinfo else when.replace(tzinfo=UTC)
        seconds = (when - datetime.now(UTC)).total_seconds()
    return max(seconds, 0.0) if math.isfinite(seconds) else None


def _reply(content: bytes) -> Reply:
    try:
        record = json.loads(content)
        text = record["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError, RecursionError) as error:
        raise _Try(f"something else ({type(error).__name__})", answered=True) from error
    if not isinstance(text, str) or not text.strip():
        raise _Try("one without text", answered=True)
    usage = record.get("usage")
    counts = usage if isinstance(usage, dict) else {}
    return Reply(text, _count(counts.get("prompt_tokens")), _count(counts.get("completion_tokens")))


def _count(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _shown(url: str) -> str:
    return repr(url.split("@")[-1][:80])
