"""`/v1/responses`, without state: the whole conversation comes with each request."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from .answers import Answers, identity, now
from .asking import choice_of
from .chat import conversation, matcher_of
from .growing import Finished, Piece
from .kinds import is_list, is_object
from .served import Served, Wanted
from .tools import Call, Message, Tools, calls_in, chosen_tools, may_be_call


def wanted_response(served: Served, body: Mapping[str, Any]) -> tuple[Wanted, Tools]:
    """What a judged body asks for. Raises Refused."""
    tools = chosen_tools(body["tools"] or (), body["tool_choice"], body["parallel_tool_calls"])
    form = _form(body)
    return (
        Wanted(
            [conversation(served, _messages(body), tools, "input")],
            1,
            body["max_output_tokens"],
            [],
            choice_of(body),
            matcher_of(served, form["type"], form.get("schema"), "text.format", tools),
            "max_output_tokens",
            "input",
        ),
        tools,
    )


def _form(body: Mapping[str, Any]) -> Any:
    text: Any = body["text"] or {}
    return text.get("format") or {"type": "text"}


def _messages(body: Mapping[str, Any]) -> list[Message]:
    """The conversation in a chat's form."""
    given = body["input"]
    items: list[Any] = [{"role": "user", "content": given}] if isinstance(given, str) else given
    found: list[Message] = []
    if body["instructions"]:
        found.append({"role": "system", "content": body["instructions"]})
    for item in items:
        kind = item.get("type")
        if kind == "function_call":
            about = {"name": item["name"], "arguments": item["arguments"]}
            call = {"id": item["call_id"], "type": "function", "function": about}
            found.append({"role": "assistant", "content": "", "tool_calls": [call]})
        elif kind == "function_call_output":
            found.append({"role": "tool", "content": _text(item["output"]), "tool_call_id": item["call_id"]})
        else:
            role = "system" if item["role"] == "developer" else item["role"]
            found.append({"role": role, "content": _text(item["content"])})
    return found


def _text(content: Any) -> str:
    return "".join(part["text"] for part in content) if is_list(content) else str(content)


@dataclass
class Response:
    """The form of an answer, whole and in events. body: of the request, parts of which it repeats."""

    answers: Answers
    tools: Tools
    body: Mapping[str, Any]
    _number: int = 0
    _item: dict[str, Any] = field(default_factory=dict[str, Any])
    _called: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    named = True  # events have a name, and the last one has no mark of its own

    def __post_init__(self) -> None:
        self._same = {"id": identity("resp"), "object": "response", "created_at": now()}

    def whole(self) -> dict[str, Any]:
        text = self.answers.texts[0]
        output = self._calls or [self._message(text.text, "completed")]
        usage = self.answers.usage
        cut = text.ended.reason == "length"
        counted = {
            "input_tokens": usage["prompt_tokens"],
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": usage["completion_tokens"],
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage["total_tokens"],
        }
        return {
            **self._about("incomplete" if cut else "completed", output),
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "usage": counted,
            "x_waferc": self.answers.timings,
        }

    @property
    def _calls(self) -> list[dict[str, Any]]:
        """The same each time that they are asked for."""
        if self.tools and not self._called:
            self._called = [_call(call) for call in calls_in(self.answers.texts[0].text)]
        return self._called

    def _about(self, status: str, output: list[Any]) -> dict[str, Any]:
        body = self.body
        choice = body["tool_choice"]
        return {
            **self._same,
            "status": status,
            "model": self.answers.served.name,
            "output": output,
            "error": None,
            "incomplete_details": None,
            "instructions": body["instructions"],
            "max_output_tokens": body["max_output_tokens"],
            "temperature": body["temperature"],
            "top_p": body["top_p"],
            "tools": body["tools"] or [],
            "tool_choice": choice if choice is not None else "auto",
            "parallel_tool_calls": body["parallel_tool_calls"],
            "text": {"format": _form(body)},
            "metadata": body["metadata"] if is_object(body["metadata"]) else {},
            "previous_response_id": None,
            "store": False,
            "usage": None,
        }

    def _message(self, text: str, status: str) -> dict[str, Any]:
        if not self._item:
            self._item = {"id": identity("msg"), "type": "message", "role": "assistant"}
        return {**self._item, "status": status, "content": [_part(text)]}

    def opening(self) -> Iterator[dict[str, Any]]:
        begun = self._about("in_progress", [])
        yield self._event("response.created", response=begun)
        yield self._event("response.in_progress", response=begun)

    def _begin(self) -> Iterator[dict[str, Any]]:
        item: dict[str, Any] = {**self._message("", "in_progress"), "content": []}
        yield self._event("response.output_item.added", output_index=0, item=item)
        yield self._event("response.content_part.added", **self._at, part=_part(""))

    @property
    def _at(self) -> dict[str, Any]:
        return {"item_id": self._item["id"], "output_index": 0, "content_index": 0}

    def piece(self, index: int, event: Piece | Finished) -> Iterator[dict[str, Any]]:
        text = self.answers.texts[0]
        if isinstance(event, Piece):
            if self.tools and may_be_call(text.text):
                return
            delta = event.text
            if not self._item:
                yield from self._begin()
                delta = text.text  # with what was held back as the beginning of a call
            if delta:
                yield self._event("response.output_text.delta", **self._at, delta=delta, logprobs=[])
            return
        calls = self._calls
        if calls:
            for i, call in enumerate(calls):
                yield from self._told(i, call)
        else:
            whole = text.text
            if not self._item:
                yield from self._begin()
                if whole:
                    yield self._event("response.output_text.delta", **self._at, delta=whole, logprobs=[])
            yield self._event("response.output_text.done", **self._at, text=whole, logprobs=[])
            yield self._event("response.content_part.done", **self._at, part=_part(whole))
            item = self._message(whole, "completed")
            yield self._event("response.output_item.done", output_index=0, item=item)

    def _told(self, index: int, item: dict[str, Any]) -> Iterator[dict[str, Any]]:
        at = {"item_id": item["id"], "output_index": index}
        begun = {**item, "arguments": "", "status": "in_progress"}
        yield self._event("response.output_item.added", output_index=index, item=begun)
        yield self._event("response.function_call_arguments.delta", **at, delta=item["arguments"])
        yield self._event(
            "response.function_call_arguments.done", **at, arguments=item["arguments"], name=item["name"]
        )
        yield self._event("response.output_item.done", output_index=index, item=item)

    def closing(self) -> Iterator[dict[str, Any]]:
        whole = self.whole()
        kind = "response.incomplete" if whole["incomplete_details"] else "response.completed"
        yield self._event(kind, response=whole)

    def _event(self, kind: str, **members: Any) -> dict[str, Any]:
        number, self._number = self._number, self._number + 1
        return {"type": kind, "sequence_number": number, **members}


def _part(text: str) -> dict[str, Any]:
    none: list[Any] = []
    return {"type": "output_text", "text": text, "annotations": none, "logprobs": none}


def _call(call: Call) -> dict[str, Any]:
    about = {"call_id": identity("call"), "name": call.name, "arguments": call.arguments}
    return {"id": identity("fc"), "type": "function_call", "status": "completed", **about}
