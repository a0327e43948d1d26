"""So many at a time: what keeps a thread and the processor busy for long, one after the other, without a thread."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, Request

from spicula.pipelines.current_outputs import Busy

AT_A_TIME = 2
"""So many studies' files are written at a time; every other request finds a thread."""

WAIT_S = 30.0
"""So long a request waits for its turn."""

AGAIN_S = 5
"""What is told to who waited in vain: ask again after so many seconds."""

_LOOK_S = 0.05


class Turns:
    """Lets so many in at a time; who waits takes no thread.

    Args:
        most: At a time.
        wait_s: How long one waits at most.
    """

    def __init__(self, most: int = AT_A_TIME, wait_s: float = WAIT_S) -> None:
        self._free, self._wait_s = threading.BoundedSemaphore(most), wait_s

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Take a turn.

        Raises:
            Busy: None became free.
        """
        until = time.monotonic() + self._wait_s
        while not self._free.acquire(blocking=False):
            if time.monotonic() >= until:
                raise Busy("server", got="more exports than it makes at a time", hint="ask again in a while")
            await asyncio.sleep(_LOOK_S)
        try:
            yield
        finally:
            self._free.release()


async def exports_of(request: Request) -> Turns:
    """Those of the application's exports."""
    turns: Turns = request.app.state.exports
    return turns


Exporting = Annotated[Turns, Depends(exports_of)]
