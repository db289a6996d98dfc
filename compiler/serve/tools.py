"""Functions that an answer may call: what a model is told of them, and the form of a call.

A call is written <tool_call>{"name": ..., "arguments": ...}</tool_call>, as several families of models do.
An answer is a text, or calls and nothing else; the grammar sees to that.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from .kinds import is_object
from .refusals import Refused

OPEN, CLOSE = "<tool_call>", "</tool_call>"
ANY_ARGUMENTS = {"type": "object"}
Message = dict[str, Any]


@dataclass(frozen=True)
class Function:
    name: str
    description: str
    parameters: Mapping[str, Any]

    @property
    def told(self) -> dict[str, Any]:
        """As templates have it."""
        about = {"name": self.name, "description": self.description, "parameters": self.parameters}
        return {"type": "function", "function": about}


@dataclass(frozen=True)
class Tools:
    """The functions of a request. must: whether an answer calls one in any case. several: whether it
    may hold more than one call."""

    functions: tuple[Function, ...] = ()
    must: bool = False
    several: bool = True

    def __bool__(self) -> bool:
        return bool(self.functions)

    @property
    def grammar(self) -> str:
        """In Lark's form: each function's arguments follow its schema, which is a root of its own."""
        each = " | ".join(f"call{i}" for i in range(len(self.functions)))
        rules = [
            f"start: {'' if self.must else 'TEXT | '}calls",
            f"calls: call{'+' if self.several else ''}",
            f'call: "{OPEN}" SPACE ({each}) SPACE "{CLOSE}" SPACE',
            r"SPACE: /\n?/",
            r"TEXT: /(|<|[^<](.|\n)*|<[^t](.|\n)*)/",
        ]
        for i, function in enumerate(self.functions):
            head = json.dumps(f'{{"name": {json.dumps(function.name)}, "arguments": ')
            rules.append(f'call{i}: {head} arguments{i} "}}"')
            rules.append(f"arguments{i}: %json {json.dumps(dict(function.parameters))}")
        return "\n".join(rules)


def chosen_tools(functions: Sequence[Mapping[str, Any]], choice: Any, several: bool) -> Tools:
    """functions: as the body has them. choice: its tool_choice, or an object with a function's name.

    Raises Refused.
    """
    found: dict[str, Function] = {}
    for i, f in enumerate(functions):
        if f["name"] in found:
            raise Refused(f"tools[{i}]: two functions called {f['name']!r}", "tools")
        found[f["name"]] = Function(f["name"], f["description"] or "", f["parameters"] or ANY_ARGUMENTS)
    if isinstance(choice, str) and choice == "none":
        return Tools()
    if is_object(choice):
        named = choice["name"]
        if named not in found:
            raise Refused(f"tool_choice: no function of tools is called {named!r}", "tool_choice")
        return Tools((found[named],), True, False)
    if choice == "required" and not found:
        raise Refused("tool_choice: there are no tools", "tool_choice")
    return Tools(tuple(found.values()), choice == "required", several)


@dataclass(frozen=True)
class Call:
    """arguments: JSON, as OpenAI's clients expect it."""

    name: str
    arguments: str


def calls_in(text: str) -> list[Call]:
    """The calls of an answer; none if it is a text, or ends within one."""
    if not text.startswith(OPEN) or not text.rstrip().endswith(CLOSE):
        return []
    found: list[Call] = []
    for part in re.split(f"{CLOSE}\\s*(?:{OPEN}|$)", text.removeprefix(OPEN))[:-1]:
        try:
            call = json.loads(part)
            found.append(Call(call["name"], json.dumps(call["arguments"])))
        except (ValueError, KeyError, TypeError):
            return []
    return found


def may_be_call(text: str) -> bool:
    """Whether an answer that begins so may be calls."""
    return text.startswith(OPEN) or OPEN.startswith(text)


def told(
    messages: Sequence[Message], tools: Tools, knows: bool
) -> tuple[list[Message], list[dict[str, Any]]]:
    """Messages and tools as a model's template takes them. knows: whether it knows what tools are; if not, a
    message of the system says it, and calls and their results become texts."""
    if knows:
        return [_parsed(m) for m in messages], [f.told for f in tools.functions]
    out: list[Message] = []
    if tools:
        signatures = "\n".join(json.dumps(f.told) for f in tools.functions)
        text = (
            f"You may call functions:\n{signatures}\n"
            f'To call one, answer {OPEN}{{"name": NAME, "arguments": ARGUMENTS}}{CLOSE} and nothing else.'
        )
        first = messages[0] if messages and messages[0]["role"] == "system" else None
        out.append({"role": "system", "content": f"{first['content']}\n\n{text}" if first else text})
        messages = messages[1:] if first else messages
    for m in messages:
        if m["role"] == "tool":
            out.append({"role": "user", "content": f"<tool_response>\n{m['content']}\n</tool_response>"})
        elif m.get("tool_calls"):
            calls = [_written(c["function"]) for c in m["tool_calls"]]
            text = "\n".join([*([m["content"]] if m["content"] else []), *calls])
            out.append({"role": m["role"], "content": text})
        else:
            out.append(m)
    return out, []


def _written(call: Mapping[str, str]) -> str:
    """A call as an answer holds it."""
    return f'{OPEN}{{"name": {json.dumps(call["name"])}, "arguments": {call["arguments"]}}}{CLOSE}'


def _parsed(message: Message) -> Message:
    """A message whose calls have their arguments as values, as templates expect them."""
    if not message.get("tool_calls"):
        return message
    calls: list[Any] = []
    for call in message["tool_calls"]:
        function = dict(call["function"])
        with suppress(ValueError):  # else as it was said
            function["arguments"] = json.loads(function["arguments"])
        calls.append({**call, "function": function})
    return {**message, "tool_calls": calls}
