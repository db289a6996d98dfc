"""The table of all fields: what requests may say. Validation, docs/serving.md and openapi.json come of it."""

from __future__ import annotations

from dataclasses import dataclass

from .kinds import Anything, Either, Field, Flag, ListOf, Mapped, Number, OneOf, Struct, Text, tagged, whole

MOST_TOKENS = 1 << 24  # of a text
MOST_PROMPTS = 128  # of a request
MOST_INPUTS = 2048  # texts of one request for embeddings
MOST_MESSAGES = 4096
MOST_TOOLS = 128
MOST_STOPS = 4
MOST_BIASES = 1024
MOST_LOGPROBS = 20

TOKEN = whole(0, (1 << 31) - 1)
TOKENS = ListOf(TOKEN, 1, 1 << 20)
NAME = Text(1)


def ignored(name: str, what: str = "cannot change the answer") -> Field:
    return Field(name, Anything(open=True), what, support="ignored")


def refused(name: str, what: str, default: object = None) -> Field:
    return Field(name, Anything(open=True), what, default, "refused")


MODEL = Field("model", NAME, "the name of a program, as /v1/models lists them", required=True)
DRAWN = (
    Field("temperature", Number(0, 2), "0 takes the likeliest token", 1.0),
    Field("top_p", Number(0, 1), "draw among the likeliest tokens that make up this share", 1.0),
)
CHOSEN = (
    *DRAWN,
    Field("top_k", whole(0, MOST_TOKENS), "draw among so many of the likeliest; 0: all (not OpenAI's)", 0),
    Field("seed", whole(-(1 << 63), (1 << 63) - 1), "the same draws each time"),
    Field("frequency_penalty", Number(-2, 2), "times a token's count in the answer, off its logit", 0.0),
    Field("presence_penalty", Number(-2, 2), "off the logit of a token that is in the answer", 0.0),
    Field("logit_bias", Mapped(Number(-100, 100), MOST_BIASES), "added to tokens' logits"),
)
ENDED = (
    Field("n", whole(1, 128), "answers, at most as many as the program has slots", 1),
    Field("stop", Either((Text(1), ListOf(Text(1), 0, MOST_STOPS))), "texts before which the answer ends"),
)
STREAMED = (
    Field("stream", Flag(), "whether the answer comes piece by piece", False),
    Field(
        "stream_options",
        Struct(
            (
                Field("include_usage", Flag(), default=False),
                ignored("include_obfuscation"),
            )
        ),
        "include_usage: a last piece with the usage",
    ),
)
IGNORED = (
    ignored("user"),
    ignored("metadata"),
    ignored("store", "nothing is stored"),
    ignored("service_tier"),
    ignored("safety_identifier"),
    ignored("prompt_cache_key"),
    ignored("prompt_cache_retention"),
    ignored("prompt_cache_options"),
)

TEXT_PARTS = ListOf(
    tagged("type", text=(Field("text", Text(), required=True), ignored("prompt_cache_breakpoint"))), 1, 1024
)
CONTENT = Either((Text(), TEXT_PARTS))
CALL = tagged(
    "type",
    function=(
        Field("id", NAME, required=True),
        Field(
            "function",
            Struct((Field("name", NAME, required=True), Field("arguments", Text(), required=True))),
            required=True,
        ),
    ),
)


def _message(required: bool = True, *more: Field) -> tuple[Field, ...]:
    return (Field("content", CONTENT, required=required), Field("name", NAME), *more)


MESSAGE = tagged(
    "role",
    system=_message(),
    developer=_message(),
    user=_message(),
    assistant=_message(
        False,
        Field("tool_calls", ListOf(CALL, 0, MOST_TOOLS)),
        ignored("refusal"),
        ignored("annotations"),
        refused("audio", "texts only"),
        refused("function_call", "use tool_calls"),
    ),
    tool=_message(True, Field("tool_call_id", NAME, required=True)),
)
FUNCTION = (
    Field("name", NAME, required=True),
    Field("description", Text()),
    Field("parameters", Anything(), "a JSON schema of the arguments"),
    Field("strict", Flag(), "arguments follow their schema in any case"),
)
TOOL = tagged("type", function=(Field("function", Struct(FUNCTION), required=True),))
CHOICE_WORDS = OneOf(("none", "auto", "required"))
TOOL_CHOICE = Either(
    (
        CHOICE_WORDS,
        tagged(
            "type",
            function=(Field("function", Struct((Field("name", NAME, required=True),)), required=True),),
        ),
    )
)
SCHEMA = (
    Field("name", NAME, required=True),
    Field("description", Text()),
    Field("schema", Anything(), "a JSON schema"),
    Field("strict", Flag(), "the answer follows the schema in any case"),
)
FORMAT = tagged(
    "type",
    text=(),
    json_object=(),
    json_schema=(Field("json_schema", Struct(SCHEMA), required=True),),
)

CHAT = Struct(
    (
        MODEL,
        Field("messages", ListOf(MESSAGE, 1, MOST_MESSAGES), "the conversation; texts only", required=True),
        Field(
            "max_completion_tokens", whole(1, MOST_TOKENS), "of the answer; by default what the caches hold"
        ),
        Field("max_tokens", whole(1, MOST_TOKENS), "its old name"),
        *CHOSEN,
        *ENDED,
        *STREAMED,
        Field("logprobs", Flag(), "logarithms of the tokens' shares, before penalties and biases", False),
        Field(
            "top_logprobs", whole(0, MOST_LOGPROBS), "of so many of the likeliest tokens, too; with logprobs"
        ),
        Field("response_format", FORMAT, "JSON by masking logits; needs the package llguidance"),
        Field("tools", ListOf(TOOL, 0, MOST_TOOLS), "functions that the answer may call; needs llguidance"),
        Field("tool_choice", TOOL_CHOICE, "none, auto, required or a function; auto where there are tools"),
        Field("parallel_tool_calls", Flag(), "whether an answer may hold several calls", True),
        ignored("prediction"),
        ignored("verbosity", "a hint that these models do not know"),
        ignored("reasoning_effort", "a hint that these models do not know"),
        refused("modalities", "texts only", ["text"]),
        refused("audio", "texts only"),
        refused("web_search_options", "nothing is searched"),
        refused("moderation", "nothing is moderated"),
        refused("functions", "use tools"),
        refused("function_call", "use tool_choice"),
        *IGNORED,
    ),
    "a chat",
)

COMPLETIONS = Struct(
    (
        MODEL,
        Field(
            "prompt",
            Either((Text(), TOKENS, ListOf(Text(), 1, MOST_PROMPTS), ListOf(TOKENS, 1, MOST_PROMPTS))),
            "a text, tokens, or a list of either",
            required=True,
        ),
        Field("max_tokens", whole(1, MOST_TOKENS), "of each answer", 16),
        *CHOSEN,
        *ENDED,
        *STREAMED,
        Field(
            "logprobs", whole(0, 5), "logarithms of the shares of the tokens and of so many of the likeliest"
        ),
        Field("echo", Flag(), "whether the answer begins with the prompt; not with logprobs", False),
        refused("best_of", "answers are not compared", 1),
        refused("suffix", "texts are continued only"),
        *IGNORED,
    ),
    "a completion",
)

EMBEDDINGS = Struct(
    (
        MODEL,
        Field(
            "input",
            Either((Text(1), TOKENS, ListOf(Text(1), 1, MOST_INPUTS), ListOf(TOKENS, 1, MOST_INPUTS))),
            "a text, tokens, or a list of either",
            required=True,
        ),
        Field("encoding_format", OneOf(("float", "base64")), "base64: of little-endian f32", "float"),
        refused("dimensions", "embeddings have the model's length"),
        ignored("user"),
    ),
    "texts to embed",
)

RESPONSE_PARTS = ListOf(
    tagged(
        "type",
        input_text=(Field("text", Text(), required=True),),
        output_text=(Field("text", Text(), required=True), ignored("annotations"), ignored("logprobs")),
    ),
    1,
    1024,
)
ITEM_ROLE = OneOf(("user", "assistant", "system", "developer"))
PLAIN_ITEM = Struct(
    (
        Field("role", ITEM_ROLE, required=True),
        Field("content", Either((Text(), RESPONSE_PARTS)), required=True),
        Field("type", OneOf(("message",)), default="message"),
        ignored("id"),
        ignored("status"),
        ignored("phase"),
    ),
    "a message",
)
CALL_ITEM = tagged(
    "type",
    function_call=(
        Field("call_id", NAME, required=True),
        Field("name", NAME, required=True),
        Field("arguments", Text(), required=True),
        ignored("id"),
        ignored("status"),
    ),
    function_call_output=(
        Field("call_id", NAME, required=True),
        Field("output", Either((Text(), RESPONSE_PARTS)), required=True),
        ignored("id"),
        ignored("status"),
    ),
)
RESPONSES = Struct(
    (
        MODEL,
        Field(
            "input",
            Either((Text(), ListOf(Either((PLAIN_ITEM, CALL_ITEM)), 1, MOST_MESSAGES))),
            "a question, or the conversation",
            required=True,
        ),
        Field("instructions", Text(), "a message of the system before the input"),
        Field("max_output_tokens", whole(1, MOST_TOKENS), "of the answer; by default what the caches hold"),
        *DRAWN,
        Field("stream", Flag(), "whether the answer comes as events", False),
        Field(
            "text",
            Struct(
                (
                    Field("format", tagged("type", text=(), json_object=(), json_schema=SCHEMA)),
                    ignored("verbosity"),
                )
            ),
            "format: JSON by masking logits; needs the package llguidance",
        ),
        Field(
            "tools", ListOf(tagged("type", function=FUNCTION), 0, MOST_TOOLS), "functions; needs llguidance"
        ),
        Field(
            "tool_choice",
            Either((CHOICE_WORDS, tagged("type", function=(Field("name", NAME, required=True),)))),
            "none, auto, required or a function; auto where there are tools",
        ),
        Field("parallel_tool_calls", Flag(), "whether an answer may hold several calls", True),
        refused("previous_response_id", "nothing is stored; give the whole conversation as input"),
        refused("conversation", "nothing is stored; give the whole conversation as input"),
        refused("prompt", "there are no stored prompts"),
        refused("background", "answers are given at once", False),
        refused("include", "there is nothing more to include", []),
        refused("max_tool_calls", "the server calls no tools"),
        refused("top_logprobs", "of chats only", 0),
        refused("truncation", "conversations are not cut", "disabled"),
        ignored("reasoning", "a hint that these models do not know"),
        ignored("stream_options"),
        *IGNORED,
    ),
    "a conversation",
)


@dataclass(frozen=True)
class Endpoint:
    """What is asked of `path` with a body of these fields. what: for the documentation."""

    path: str
    body: Struct
    what: str


ENDPOINTS = (
    Endpoint("/v1/chat/completions", CHAT, "The next message of a conversation."),
    Endpoint("/v1/completions", COMPLETIONS, "What follows a text, or tokens."),
    Endpoint("/v1/responses", RESPONSES, "The answer to a conversation; nothing of it is stored."),
    Endpoint("/v1/embeddings", EMBEDDINGS, "Vectors of texts, mean pooled and of length 1."),
)


def table(struct: Struct) -> str:
    """The fields of a body in Markdown."""
    rows = ["| field | takes | |", "|---|---|---|"]
    for f in struct.fields:
        takes = {"used": str(f.kind), "ignored": "anything", "refused": "nothing else than the default"}
        note = "; ".join(
            filter(
                None,
                (
                    "required" if f.required else "",
                    f.what,
                    f"by default {f.default}" if f.default not in (None, [], "") else "",
                    "refused" if f.support == "refused" else "",
                    "ignored" if f.support == "ignored" else "",
                ),
            )
        )
        rows.append(f"| `{f.name}` | {takes[f.support]} | {note} |")
    return "\n".join(rows)
