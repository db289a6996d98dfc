"""Requests in and answers out: bodies within a bound, JSON, streams of events, and clients that go away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ...codegen.artifact.strict_json import parsed
from .kinds import Struct
from .refusals import Refused

T = TypeVar("T")
ALIVE = 15.0  # seconds after which a stream without news says that it is alive
DONE = b"data: [DONE]\n\n"


def dumped(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


class Json(Response):
    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return dumped(content)


async def judged_body(request: Request, struct: Struct, most: int) -> dict[str, Any]:
    """The request's body as the table has it. most: bytes. Raises Refused."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":  # which a page of another origin cannot send unasked
        raise Refused("the content-type is not application/json", status=415, code="unsupported_media_type")
    content = bytearray()
    announced = request.headers.get("content-length", "0")
    if announced.isdecimal() and len(announced) < 20 and int(announced) > most:
        raise _too_large(most)
    async for part in request.stream():
        content += part
        if len(content) > most:
            raise _too_large(most)
    # A large body takes long to read, and other requests must not wait for it.
    return await asyncio.to_thread(_judged, bytes(content), struct)


def _judged(content: bytes, struct: Struct) -> dict[str, Any]:
    try:
        value = parsed(content)
    except ValueError as e:
        raise Refused(f"the body is no JSON: {e}", code="invalid_json") from None
    return struct.judge(value, "")


def _too_large(most: int) -> Refused:
    return Refused(f"the body has more than {most:,} bytes", status=413, code="body_too_large")


async def gone(receive: Receive) -> None:
    """Returns when the client has gone away."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def unless_gone(request: Request, work: Awaitable[T]) -> T | None:
    """What `work` gives; None, with the work cancelled, if the client goes away before."""
    doing, leaving = asyncio.ensure_future(work), asyncio.ensure_future(gone(request.receive))
    try:
        await asyncio.wait((doing, leaving), return_when=asyncio.FIRST_COMPLETED)
        return doing.result() if doing.done() else None
    finally:
        for task in (doing, leaving):
            task.cancel()
        for task in (doing, leaving):
            with suppress(asyncio.CancelledError, Exception):
                await task


class EventStream(Response):
    """A response of server-sent events. events: each as bytes; what it raises as Refused is told as an event.

    ended: is called at the end, however that comes.
    """

    def __init__(
        self,
        events: AsyncIterator[bytes],
        ended: Callable[[], None],
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(
            headers={"cache-control": "no-cache", "x-accel-buffering": "no", **(headers or {})},
            media_type="text/event-stream",
        )
        # The length of a body that is not known yet.
        self.raw_headers = [pair for pair in self.raw_headers if pair[0] != b"content-length"]
        self._events, self._ended = events, ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sending = asyncio.ensure_future(self._send(send))
        leaving = asyncio.ensure_future(gone(receive))
        try:
            await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
        finally:
            self._ended()
            for task in (sending, leaving):
                task.cancel()
            for task in (sending, leaving):
                with suppress(asyncio.CancelledError, Exception):
                    await task

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        coming = asyncio.ensure_future(anext(self._events))
        try:
            while True:
                done, _ = await asyncio.wait((coming,), timeout=ALIVE)
                if not done:
                    await self._out(send, b": alive\n\n")
                    continue
                try:
                    event = coming.result()
                except StopAsyncIteration:
                    break
                except Refused as e:
                    await self._out(send, b"data: " + dumped(e.body) + b"\n\n")
                    break
                coming = asyncio.ensure_future(anext(self._events))
                await self._out(send, event)
        finally:
            coming.cancel()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _out(self, send: Send, content: bytes) -> None:
        await send({"type": "http.response.body", "body": content, "more_body": True})
