"""The server's addresses, and what stands before them all: the key, hosts, and errors in OpenAI's shape."""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from ..errors import quoted
from .answers import Answers
from .chat import Chat, wanted_chat
from .completions import Completions, wanted_completions
from .embeddings import ServedEncoder
from .fields import CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES
from .growing import Finished, Piece
from .kinds import Struct
from .metrics import Metrics
from .openapi import described
from .page import page
from .refusals import Refused
from .responses import Response as Answer
from .responses import wanted_response
from .served import Served
from .transport import DONE, EventStream, Json, dumped, judged_body, unless_gone

log = logging.getLogger("waferc.serve")
OPEN = ("/", "/health", "/openapi.json")  # without a key


@dataclass(frozen=True)
class Settings:
    """key: that clients must give; None: none. hosts: names by which the server may be called, "*" for any.
    origins: of pages that may call it. body: bytes at most.
    """

    key: str | None = None
    hosts: Sequence[str] = ("127.0.0.1", "localhost", "[::1]")
    origins: Sequence[str] = ()
    body: int = 4 << 20


class Form(Protocol):
    """How an endpoint writes its answers."""

    answers: Answers
    named: bool  # whether events have a name, their type's; then [DONE] does not end them

    def whole(self) -> dict[str, Any]: ...

    def opening(self) -> Iterable[dict[str, Any]]: ...

    def piece(self, index: int, event: Piece | Finished) -> Iterable[dict[str, Any]]: ...

    def closing(self) -> Iterable[dict[str, Any]]: ...


class Server:
    """Programs by name, and what clients may ask of them."""

    def __init__(self, models: Mapping[str, Served | ServedEncoder], settings: Settings) -> None:
        self.models, self.settings = models, settings
        self.metrics = Metrics(models.values())

    def app(self) -> Starlette:
        routes = [
            Route("/", self._guarded(self.page), methods=["GET"]),
            Route("/film/{name:path}", self._guarded(self.film), methods=["GET"]),
            Route("/health", self._guarded(self.health), methods=["GET"]),
            Route("/metrics", self._guarded(self.count), methods=["GET"]),
            Route("/v1/models", self._guarded(self.list), methods=["GET"]),
            Route("/v1/models/{name:path}", self._guarded(self.one), methods=["GET"]),
            Route("/v1/chat/completions", self._guarded(self.chat), methods=["POST"]),
            Route("/v1/completions", self._guarded(self.completions), methods=["POST"]),
            Route("/v1/responses", self._guarded(self.responses), methods=["POST"]),
            Route("/v1/embeddings", self._guarded(self.embeddings), methods=["POST"]),
            Route("/openapi.json", self._guarded(self.openapi), methods=["GET"]),
        ]
        before = [
            Middleware(TrustedHostMiddleware, allowed_hosts=list(self.settings.hosts), www_redirect=False)
        ]
        if self.settings.origins:
            before.append(
                Middleware(
                    CORSMiddleware,
                    allow_origins=list(self.settings.origins),
                    allow_methods=["GET", "POST"],
                    allow_headers=["authorization", "content-type"],
                )
            )
        handlers: dict[Any, Any] = {HTTPException: self._no_such, Exception: self._bug}
        return Starlette(routes=routes, middleware=before, exception_handlers=handlers)

    # -- what is asked ------------------------------------------------------------------------

    async def page(self, request: Request) -> Response:
        content, policy = page()
        return Response(content, media_type="text/html", headers={"content-security-policy": policy})

    async def film(self, request: Request) -> Response:
        """What the page draws of a program."""
        served = self._texts_of(request.path_params["name"])
        return Json(await asyncio.to_thread(lambda: served.film))

    async def health(self, request: Request) -> Response:
        return Json({"status": "ok"})

    async def count(self, request: Request) -> Response:
        return Response(self.metrics.text(), media_type="text/plain; version=0.0.4")

    async def list(self, request: Request) -> Response:
        return Json({"object": "list", "data": [_described(served) for served in self.models.values()]})

    async def one(self, request: Request) -> Response:
        return Json(_described(self._named(request.path_params["name"])))

    async def chat(self, request: Request) -> Response:
        def form(served: Served, body: dict[str, Any]) -> Callable[[], Form]:
            wanted, tools = wanted_chat(served, body)
            return lambda: Chat(Answers(served, wanted), tools, _with_usage(body))

        return await self._texts(request, CHAT, form)

    async def completions(self, request: Request) -> Response:
        def form(served: Served, body: dict[str, Any]) -> Callable[[], Form]:
            wanted, echoes = wanted_completions(served, body)
            return lambda: Completions(Answers(served, wanted), echoes, _with_usage(body))

        return await self._texts(request, COMPLETIONS, form)

    async def responses(self, request: Request) -> Response:
        def form(served: Served, body: dict[str, Any]) -> Callable[[], Form]:
            wanted, tools = wanted_response(served, body)
            return lambda: Answer(Answers(served, wanted), tools, body)

        return await self._texts(request, RESPONSES, form)

    async def embeddings(self, request: Request) -> Response:
        body = await judged_body(request, EMBEDDINGS, self.settings.body)
        served = self._named(body["model"])
        if not isinstance(served, ServedEncoder):
            raise Refused(f"{served.name} makes texts, and no embeddings", "model")
        answer = await unless_gone(request, served.answer(body))
        return Response(status_code=499) if answer is None else Json(answer)

    async def openapi(self, request: Request) -> Response:
        return Json(described(list(self.models)))

    # -- how it is answered -------------------------------------------------------------------

    async def _texts(
        self,
        request: Request,
        struct: Struct,
        prepare: Callable[[Served, dict[str, Any]], Callable[[], Form]],
    ) -> Response:
        """Whole, or as a stream. prepare: what of a request may take a while, in a thread; it gives what
        starts the texts."""
        body = await judged_body(request, struct, self.settings.body)
        served = self._texts_of(body["model"])
        said = struct.by_name["stream_options"].support == "used" and body["stream_options"] is not None
        if said and not body["stream"]:
            raise Refused("stream_options needs stream: true", "stream_options")
        start = await asyncio.to_thread(prepare, served, body)
        form = start()
        if body["stream"]:
            return EventStream(self._streamed(form), lambda: self._ended(form.answers))
        try:
            done = await unless_gone(request, form.answers.all())
        finally:
            self._ended(form.answers)
        if done is None:
            return Response(status_code=499)
        return Json(form.whole())

    async def _streamed(self, form: Form) -> AsyncGenerator[bytes]:
        for chunk in form.opening():
            yield _event(chunk, form.named)
        async for index, event in form.answers.events():
            for chunk in form.piece(index, event):
                yield _event(chunk, form.named)
        for chunk in form.closing():
            yield _event(chunk, form.named)
        if not form.named:
            yield DONE

    def _ended(self, answers: Answers) -> None:
        """However it came to that."""
        if not answers.over:
            answers.cancel()
            self.metrics.abandoned()
        self.metrics.made(answers.served, [text.end for text in answers.texts if text.end is not None])

    def _named(self, name: str) -> Served | ServedEncoder:
        if name not in self.models:
            known = ", ".join(map(quoted, self.models))
            raise Refused(
                f"no model {quoted(name)}; there is {known}", "model", status=404, code="model_not_found"
            )
        return self.models[name]

    def _texts_of(self, name: str) -> Served:
        served = self._named(name)
        if not isinstance(served, Served):
            raise Refused(f"{name} makes embeddings, and no texts", "model")
        return served

    def _guarded(
        self, endpoint: Callable[[Request], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        async def guarded(request: Request) -> Response:
            try:
                self._judge_key(request)
                response = await endpoint(request)
            except Refused as e:
                response = Json(e.body, e.status, e.headers)
            except ClientDisconnect:  # before all of the body was there
                response = Response(status_code=499)
            self.metrics.answered(endpoint.__name__, response.status_code)
            return response

        return guarded

    def _judge_key(self, request: Request) -> None:
        key = self.settings.key
        if key is None or request.url.path in OPEN:
            return
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), key.encode()):
            raise Refused(
                "the key is missing or wrong: Authorization: Bearer KEY",
                status=401,
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )

    async def _no_such(self, request: Request, e: HTTPException) -> Response:
        if e.status_code == 404:
            why = Refused(f"there is nothing at {request.url.path}", status=404, code="not_found")
        else:
            why = Refused(e.detail, status=e.status_code, headers=e.headers)
        return Json(why.body, why.status, why.headers)

    async def _bug(self, request: Request, e: Exception) -> Response:
        log.error("a request failed", exc_info=e)
        why = Refused(f"a bug of ours, please report it: {type(e).__name__}", status=500, code="bug")
        return Json(why.body, 500)


def _described(served: Served | ServedEncoder) -> dict[str, Any]:
    return {"id": served.name, "object": "model", "created": served.created, "owned_by": "waferc"}


def _with_usage(body: Mapping[str, Any]) -> bool:
    options: Any = body["stream_options"] or {}
    return bool(options.get("include_usage"))


def _event(chunk: Mapping[str, Any], named: bool) -> bytes:
    head = f"event: {chunk['type']}\n".encode() if named else b""
    return head + b"data: " + dumped(chunk) + b"\n\n"
