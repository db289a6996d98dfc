"""`/v1/chat/completions`: a conversation to the next message."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .answers import Answers, Text, identity, now
from .asking import LEAST, choice_of, stops_of
from .choose import Chosen, Matcher
from .grammar import ANY_OBJECT
from .growing import Finished, Piece
from .kinds import is_list, is_object
from .refusals import Refused
from .served import Served, Wanted
from .tools import Call, Message, Tools, calls_in, chosen_tools, may_be_call, told


def wanted_chat(served: Served, body: Mapping[str, Any]) -> tuple[Wanted, Tools]:
    """What a judged body asks for. Raises Refused."""
    functions = [tool["function"] for tool in body["tools"] or ()]
    choice = body["tool_choice"]
    named = choice["function"] if is_object(choice) else choice
    tools = chosen_tools(functions, named, body["parallel_tool_calls"])
    if body["top_logprobs"] is not None and not body["logprobs"]:
        raise Refused("top_logprobs needs logprobs: true", "top_logprobs")
    likeliest = body["top_logprobs"] or 0
    newer = body["max_completion_tokens"] is not None
    form: Any = body["response_format"] or {"type": "text"}
    schema = form["json_schema"]["schema"] if form["type"] == "json_schema" else None
    return (
        Wanted(
            [conversation(served, messages_of(body["messages"]), tools, "messages")],
            body["n"],
            body["max_completion_tokens"] if newer else body["max_tokens"],
            stops_of(body),
            choice_of(body, likeliest if body["logprobs"] else None),
            matcher_of(served, form["type"], schema, "response_format", tools),
            "max_completion_tokens" if newer else "max_tokens",
            "messages",
        ),
        tools,
    )


def messages_of(given: Sequence[Mapping[str, Any]]) -> list[Message]:
    """Messages with their parts as one text. Raises Refused for a conversation that ends with two answers."""
    found: list[Message] = []
    for i, message in enumerate(given):
        content = message["content"]
        if is_list(content):
            content = "".join(part["text"] for part in content)
        if content is None and not message.get("tool_calls"):
            raise Refused(f"messages[{i}].content is missing", f"messages[{i}].content")
        role = "system" if message["role"] == "developer" else message["role"]
        more = {k: message[k] for k in ("name", "tool_calls", "tool_call_id") if message.get(k)}
        found.append({"role": role, "content": content or "", **more})
    if [m["role"] for m in found[-2:]] == ["assistant", "assistant"]:
        raise Refused("messages: the last two are the assistant's", "messages")
    return found


def conversation(served: Served, messages: Sequence[Message], tools: Tools, param: str) -> list[int]:
    """The tokens before the next message."""
    texts, functions = told(messages, tools, served.model.takes_tools)
    return served.conversation_ids(texts, functions, param)


def matcher_of(
    served: Served, form: str, schema: Mapping[str, Any] | None, param: str, tools: Tools
) -> Callable[[], Matcher] | None:
    """What holds an answer to its form: `form` as in response_format, or a text or calls. Raises Refused."""
    if tools:
        if form != "text":
            raise Refused(f"{param}: not with tools that may be called", param)
        return _made(lambda: served.grammars.of_lark(tools.grammar, "tools"))
    if form == "text":
        return None
    of = ANY_OBJECT if form == "json_object" else (schema if schema is not None else ANY_OBJECT)
    return _made(lambda: served.grammars.of_schema(of, param))


def _made(make: Callable[[], Matcher]) -> Callable[[], Matcher]:
    """`make`, of which the first result is at hand: what is wrong with it shows now."""
    ready = [make()]
    return lambda: ready.pop() if ready else make()


@dataclass
class Chat:
    """The form of answers to a chat. usage: whether a stream ends with it."""

    answers: Answers
    tools: Tools
    usage: bool
    named = False

    def __post_init__(self) -> None:
        self._same = {"id": identity("chatcmpl"), "created": now(), "model": self.answers.served.name}
        self._logs = self.answers.wanted.choice.likeliest is not None

    def whole(self) -> dict[str, Any]:
        choices = [self._choice(i, text) for i, text in enumerate(self.answers.texts)]
        end = {"usage": self.answers.usage, "x_waferc": self.answers.timings}
        return {**self._same, "object": "chat.completion", "choices": choices, **end}

    def _choice(self, index: int, text: Text) -> dict[str, Any]:
        calls = self._calls(text)
        message: dict[str, Any] = {"role": "assistant", "content": None if calls else text.text}
        message["refusal"] = None
        if calls:
            message["tool_calls"] = [_said(call) for call in calls]
        return {
            "index": index,
            "message": message,
            "logprobs": self._logprobs(text.tokens),
            "finish_reason": "tool_calls" if calls else text.ended.reason,
        }

    def _calls(self, text: Text) -> list[Call]:
        return calls_in(text.text) if self.tools else []

    def _logprobs(self, tokens: Sequence[Chosen]) -> dict[str, Any] | None:
        if not self._logs:
            return None
        return {"content": [self._logged(chosen) for chosen in tokens], "refusal": None}

    def _logged(self, chosen: Chosen) -> dict[str, Any]:
        most = [self._token(token, share) for token, share in chosen.likeliest]
        assert chosen.share is not None
        return {**self._token(chosen.token, chosen.share), "top_logprobs": most}

    def _token(self, token: int, share: float) -> dict[str, Any]:
        of, content = self.answers.served.bytes, self.answers.served.bytes.of(token)
        return {
            "token": of.text(token),
            "logprob": max(share, LEAST),
            "bytes": None if content is None else list(content),
        }

    def opening(self) -> Iterator[dict[str, Any]]:
        for i in range(len(self.answers.texts)):
            yield self._chunk(i, {"role": "assistant", "content": ""})

    def piece(self, index: int, event: Piece | Finished) -> Iterator[dict[str, Any]]:
        text = self.answers.texts[index]
        if isinstance(event, Piece):
            if self.tools and may_be_call(text.text):
                return
            # What was held back as the beginning of a call, and was none, comes with what showed it.
            held = "".join(text.pieces[:-1])
            shown = text.text if self.tools and may_be_call(held) else event.text
            yield self._chunk(index, {"content": shown}, event.tokens)
            return
        calls = self._calls(text)
        if calls:
            said = [{"index": i, **_said(call)} for i, call in enumerate(calls)]
            yield self._chunk(index, {"tool_calls": said})
        elif self.tools and text.text and may_be_call(text.text):
            yield self._chunk(index, {"content": text.text})
        last = self._chunk(index, {}, reason="tool_calls" if calls else event.reason)
        yield {**last, **({"x_waferc": self.answers.timings} if self.answers.over else {})}

    def closing(self) -> Iterator[dict[str, Any]]:
        if self.usage:
            none: dict[str, Any] = {**self._same, "object": "chat.completion.chunk", "choices": []}
            yield {**none, "usage": self.answers.usage}

    def _chunk(
        self, index: int, delta: Mapping[str, Any], tokens: Sequence[Chosen] = (), reason: str | None = None
    ) -> dict[str, Any]:
        logs = self._logprobs(tokens) if tokens else None
        choice = {"index": index, "delta": delta, "logprobs": logs, "finish_reason": reason}
        return {**self._same, "object": "chat.completion.chunk", "choices": [choice]}


def _said(call: Call) -> dict[str, Any]:
    about = {"name": call.name, "arguments": call.arguments}
    return {"id": identity("call"), "type": "function", "function": about}
