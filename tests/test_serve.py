"""`waferc serve`: OpenAI's own client against a real server, and answers equal to `generate`'s."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import openai
import pytest
from language import byte_tokens
from serving import CAPACITY, Running, encoder, program, serving
from waferc import LanguageModel
from waferc.compiler.serve.fields import ENDPOINTS, table

ROOT = Path(__file__).resolve().parent.parent
ASKED = {"model": "tiny", "temperature": 0, "max_tokens": 12}
HI: Any = [{"role": "user", "content": "Hi"}]


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return LanguageModel(program())


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with serving(program(), encoder()) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.address}/v1", api_key="any", max_retries=0) as made:
        yield made


# -- what OpenAI's client gets ---------------------------------------------------------------------


def test_models(client: openai.OpenAI) -> None:
    assert [m.id for m in client.models.list()] == ["tiny", "vectors"]
    assert client.models.retrieve("tiny").owned_by == "waferc"
    with pytest.raises(openai.NotFoundError) as e:
        client.models.retrieve("gpt-4o")
    assert e.value.code == "model_not_found"


@pytest.mark.parametrize("prompt", ["the tea", "x", "日本"])
def test_a_completion_is_what_generate_makes(
    client: openai.OpenAI, model: LanguageModel, prompt: str
) -> None:
    made = model.generate(prompt, max_tokens=12)
    answer = client.completions.create(prompt=prompt, **ASKED)
    (choice,) = answer.choices
    assert (choice.text, choice.finish_reason) == (made.text, "length")
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == len(model.prompt_ids(prompt))
    assert answer.usage.completion_tokens == len(made.token_ids) == 12
    chunks = list(client.completions.create(prompt=prompt, stream=True, **ASKED))
    assert "".join(c.choices[0].text for c in chunks) == made.text
    assert [c.choices[0].finish_reason for c in chunks if c.choices[0].finish_reason] == ["length"]
    assert all(c.usage is None for c in chunks) and len({c.id for c in chunks}) == 1


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_drawn_tokens_are_those_of_generate(client: openai.OpenAI, model: LanguageModel, seed: int) -> None:
    drawn = {"temperature": 1.5, "top_p": 0.9}
    made = model.generate("tea", max_tokens=12, seed=seed, **drawn)
    answer = client.completions.create(prompt="tea", seed=seed, **{**ASKED, **drawn})
    assert answer.choices[0].text == made.text


def test_a_chat_is_what_generate_makes(client: openai.OpenAI, model: LanguageModel) -> None:
    made = model.generate("Hi", chat=True, max_tokens=12)
    answer = client.chat.completions.create(messages=HI, **ASKED)
    (choice,) = answer.choices
    assert (choice.message.role, choice.message.content) == ("assistant", made.text)
    assert choice.finish_reason == "length" and choice.logprobs is None
    assert answer.usage is not None and answer.usage.total_tokens == answer.usage.prompt_tokens + 12
    chunks = list(
        client.chat.completions.create(
            messages=HI, stream=True, stream_options={"include_usage": True}, **ASKED
        )
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks[:-1]) == made.text
    assert chunks[-2].choices[0].finish_reason == "length"
    assert chunks[-1].choices == [] and chunks[-1].usage == answer.usage
    assert all(c.usage is None for c in chunks[:-1])


def test_parts_of_a_message_are_one_text(client: openai.OpenAI) -> None:
    parts: Any = [{"role": "user", "content": [{"type": "text", "text": t} for t in ("H", "i")]}]
    one = client.chat.completions.create(messages=HI, **ASKED)
    assert client.chat.completions.create(messages=parts, **ASKED).choices[0] == one.choices[0]


def test_the_client_that_does_not_block(server: Running, model: LanguageModel) -> None:
    async def asked() -> tuple[list[str], str]:
        async with openai.AsyncOpenAI(base_url=f"{server.address}/v1", api_key="any") as client:
            each = [client.completions.create(prompt=p, **ASKED) for p in ("a", "the tea", "b", "c")]
            whole = [answer.choices[0].text for answer in await asyncio.gather(*each)]
            stream = await client.chat.completions.create(messages=HI, stream=True, **ASKED)
            return whole, "".join([c.choices[0].delta.content or "" async for c in stream])

    whole, chat = asyncio.run(asked())
    assert whole == [model.generate(p, max_tokens=12).text for p in ("a", "the tea", "b", "c")]
    assert chat == model.generate("Hi", chat=True, max_tokens=12).text


def test_several_prompts_of_tokens_and_texts(client: openai.OpenAI, model: LanguageModel) -> None:
    ids = [model.prompt_ids("the tea"), model.prompt_ids("x")]
    answer = client.completions.create(prompt=ids, echo=True, **ASKED)
    texts = [text + model.generate(text, max_tokens=12).text for text in ("the tea", "x")]
    assert [c.text for c in answer.choices] == texts and [c.index for c in answer.choices] == [0, 1]
    assert client.completions.create(prompt=ids[0], **ASKED).choices[0].text == texts[0][7:]
    assert answer.usage is not None and answer.usage.prompt_tokens == len(ids[0]) + len(ids[1])


def test_several_answers(client: openai.OpenAI, model: LanguageModel) -> None:
    asked: Any = {**ASKED, "temperature": 1, "n": 3, "seed": 5}
    made = [model.generate("tea", max_tokens=12, temperature=1, seed=5 + i).text for i in range(3)]
    answer = client.completions.create(prompt="tea", **asked)
    assert [c.text for c in answer.choices] == made and len(set(made)) == 3
    assert answer.usage is not None and answer.usage.prompt_tokens == len(model.prompt_ids("tea"))
    parts = ["", "", ""]
    for chunk in client.chat.completions.create(messages=HI, stream=True, **asked):
        parts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    whole = client.chat.completions.create(messages=HI, **asked)
    assert [c.message.content for c in whole.choices] == parts


def test_a_text_ends_before_a_stop(client: openai.OpenAI, model: LanguageModel) -> None:
    text = model.generate("the tea", max_tokens=40).text
    stop = next(text[i : i + 3] for i in range(8, len(text)) if text[i : i + 3].isprintable())
    made = model.generate("the tea", max_tokens=40, stop=[stop])
    asked = {**ASKED, "max_tokens": 40, "stop": [stop, "not there"]}
    answer = client.completions.create(prompt="the tea", **asked)
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == (made.text, "stop")
    chunks = list(client.completions.create(prompt="the tea", stream=True, **asked))
    assert "".join(c.choices[0].text for c in chunks) == made.text


def test_an_answer_ends_where_the_caches_are_full(client: openai.OpenAI, model: LanguageModel) -> None:
    made = model.generate("Hi", chat=True, max_tokens=1000)
    answer = client.chat.completions.create(model="tiny", messages=HI, temperature=0)
    assert made.end == "capacity" and answer.choices[0].message.content == made.text
    assert answer.choices[0].finish_reason == "length" and answer.usage is not None
    assert answer.usage.total_tokens == CAPACITY + 1


def test_shares_of_tokens(client: openai.OpenAI, model: LanguageModel) -> None:
    answer = client.chat.completions.create(messages=HI, logprobs=True, top_logprobs=3, **ASKED)
    logs = answer.choices[0].logprobs
    assert logs is not None and logs.content is not None and len(logs.content) == 12
    model.reset()
    logits = model.logits(model.prompt_ids("Hi", chat=True)).astype(float)
    shares = logits - np.log(np.exp(logits).sum())
    assert logs.content[0].logprob == pytest.approx(shares.max(), abs=1e-6)
    assert [t.logprob for t in logs.content[0].top_logprobs] == pytest.approx(
        sorted(shares)[:-4:-1], abs=1e-6
    )
    whole = b"".join(bytes(t.bytes or []) for t in logs.content)
    assert whole.decode("utf-8", "replace") == answer.choices[0].message.content
    old = client.completions.create(prompt="x", logprobs=2, **ASKED).choices[0].logprobs
    assert old is not None and old.top_logprobs is not None and old.token_logprobs is not None
    assert len(old.tokens or []) == 12 and all(len(t) in (1, 2) for t in old.top_logprobs)


def test_biases_and_penalties(client: openai.OpenAI) -> None:
    plain = client.completions.create(prompt="x", **ASKED).choices[0].text
    forced = client.completions.create(prompt="x", logit_bias={"70": 100}, **ASKED).choices[0].text
    assert len(set(forced)) == 1 and forced != plain
    other = client.completions.create(
        prompt="x", logit_bias={"70": 9}, frequency_penalty=2, presence_penalty=2, **ASKED
    ).choices[0]
    assert len(set(other.text)) > 1


def test_what_it_takes_on_the_wafer_is_said(server: Running) -> None:
    status, answer = server.post("/v1/completions", {**ASKED, "prompt": "the tea to drink"})
    assert status == 200
    wafer, host = answer["x_waferc"]["wafer"], answer["x_waferc"]["host"]
    calls = answer["usage"]["prompt_tokens"]
    assert wafer["name"] == "4x4" and wafer["cycles"] == pytest.approx(
        wafer["prompt_cycles"] + 11 * wafer["cycles_per_token"]
    )
    assert wafer["prompt_cycles"] < calls * wafer["cycles_per_token"]  # a part of eight goes in at once
    assert wafer["seconds"] == pytest.approx(wafer["cycles"] / wafer["clock_hz"])
    assert host["tokens_per_second"] > 0 and host["waited_seconds"] >= 0
    last = json.loads(server.events("/v1/completions", {**ASKED, "prompt": "x"})[-2].removeprefix("data: "))
    assert last["x_waferc"]["wafer"]["name"] == "4x4"


def test_health_and_metrics(server: Running) -> None:
    assert server.get("/health") == (200, {"status": "ok"})
    before = server.metric("waferc_generated_tokens_total")
    server.post("/v1/completions", {**ASKED, "prompt": "x"})
    assert server.metric("waferc_generated_tokens_total") == before + 12
    assert server.metric("waferc_slots") == 4 and server.metric("waferc_slots_busy") == 0


# -- answers of a given form -----------------------------------------------------------------------

POINT = {
    "type": "object",
    "properties": {"x": {"type": "integer", "minimum": 0, "maximum": 9}, "name": {"enum": ["a", "b"]}},
    "required": ["x", "name"],
    "additionalProperties": False,
}
FORM: Any = {"type": "json_schema", "json_schema": {"name": "point", "schema": POINT}}
TOOL: Any = {"type": "function", "function": {"name": "put", "parameters": POINT}}


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_an_answer_follows_its_schema(client: openai.OpenAI, temperature: float) -> None:
    asked = {"model": "tiny", "messages": HI, "temperature": temperature, "seed": 1, "response_format": FORM}
    choice = client.chat.completions.create(**asked).choices[0]
    jsonschema.validate(json.loads(choice.message.content or ""), POINT)
    assert choice.finish_reason == "stop"
    chunks = list(client.chat.completions.create(stream=True, **asked))
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == choice.message.content


def test_an_answer_is_an_object(client: openai.OpenAI) -> None:
    asked: Any = {"model": "tiny", "messages": HI, "response_format": {"type": "json_object"}}
    for seed in range(3):
        choice = client.chat.completions.create(seed=seed, **asked).choices[0]
        assert (choice.message.content or "").startswith("{")
        if choice.finish_reason == "stop":
            assert isinstance(json.loads(choice.message.content or ""), dict)


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "put"}}])
def test_an_answer_calls_a_function(client: openai.OpenAI, choice: Any) -> None:
    asked: Any = {"model": "tiny", "messages": [{"role": "user", "content": "?"}], "tool_choice": choice}
    asked |= {"tools": [short(TOOL)], "parallel_tool_calls": False, "seed": 3}
    answer = client.chat.completions.create(**asked).choices[0]
    assert answer.finish_reason == "tool_calls" and answer.message.content is None
    (call,) = answer.message.tool_calls or []
    assert call.type == "function" and call.function.name == "put"
    jsonschema.validate(json.loads(call.function.arguments), SMALL)
    chunks = list(client.chat.completions.create(stream=True, **asked))
    (told,) = [d for c in chunks for d in c.choices[0].delta.tool_calls or []]
    assert told.function is not None and told.function.arguments == call.function.arguments
    assert not any(c.choices[0].delta.content for c in chunks)
    # What is called, and its result, may be said again.
    said: Any = [
        *asked["messages"],
        answer.message,
        {"role": "tool", "tool_call_id": call.id, "content": "1"},
    ]
    again = client.chat.completions.create(model="tiny", messages=said, max_tokens=2)
    assert again.choices[0].finish_reason == "length"


SMALL = {
    "type": "object",
    "properties": {"x": {"enum": [1, 2]}},
    "required": ["x"],
    "additionalProperties": False,
}


def short(tool: Any) -> Any:
    """With little to say: what a model without tools in its template is told takes tokens."""
    return {"type": "function", "function": {**tool["function"], "parameters": SMALL}}


# -- responses and embeddings ----------------------------------------------------------------------


def test_a_response_is_what_a_chat_makes(client: openai.OpenAI, model: LanguageModel) -> None:
    made = model.generate("Hi", chat=True, max_tokens=12)
    asked: Any = {"model": "tiny", "input": "Hi", "temperature": 0, "max_output_tokens": 12}
    answer = client.responses.create(**asked)
    assert answer.output_text == made.text and answer.status == "incomplete"
    assert answer.usage is not None and answer.usage.output_tokens == 12
    events = list(client.responses.create(stream=True, **asked))
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == made.text
    assert [e.type for e in events[:2]] == ["response.created", "response.in_progress"]
    assert events[-1].type == "response.incomplete"
    assert [e.sequence_number for e in events] == list(range(len(events)))
    parts: Any = [{"role": "user", "content": [{"type": "input_text", "text": "Hi"}]}]
    assert client.responses.create(**{**asked, "input": parts}).output_text == made.text


def test_a_response_calls_a_function_and_follows_a_schema(client: openai.OpenAI) -> None:
    tool: Any = {"type": "function", "name": "put", "parameters": SMALL}
    asked: Any = {"model": "tiny", "input": "?", "tools": [tool], "tool_choice": "required"}
    asked["parallel_tool_calls"] = False
    (call,) = client.responses.create(**asked).output
    assert call.type == "function_call" and json.loads(call.arguments)["x"] in (1, 2)
    events = list(client.responses.create(stream=True, **asked))
    assert events[-1].type == "response.completed"
    assert "response.function_call_arguments.done" in [e.type for e in events]
    form: Any = {"format": {"type": "json_schema", "name": "point", "schema": POINT}}
    answer = client.responses.create(model="tiny", input="Hi", text=form)
    jsonschema.validate(json.loads(answer.output_text), POINT)


def test_embeddings_are_means_of_length_1(client: openai.OpenAI) -> None:
    words = np.random.default_rng(3).normal(size=(262, 8)).astype(np.float32)
    ids = [byte_tokens()[b] for b in b"tea"]
    mean = words[ids].mean(0)
    wanted = mean / np.linalg.norm(mean)
    for form in ("float", "base64"):
        answer = client.embeddings.create(model="vectors", input=["tea", "x"], encoding_format=form)
        vectors = [e.embedding for e in answer.data]
        if form == "base64":
            vectors = [np.frombuffer(base64.b64decode(str(v)), "<f4") for v in vectors]
        np.testing.assert_allclose(vectors[0], wanted, rtol=1e-5)
        assert answer.usage.prompt_tokens == 4 and [e.index for e in answer.data] == [0, 1]
    # The client asks for base64 where nothing is said, and decodes it.
    np.testing.assert_allclose(
        client.embeddings.create(model="vectors", input=ids).data[0].embedding, wanted, rtol=1e-5
    )


# -- the shape of raw bodies -----------------------------------------------------------------------

PUBLISHED = Path("/work/shared/data/openai-openapi.json")


@pytest.fixture(scope="module")
def published() -> dict[str, Any]:
    found = next(
        (p for p in (PUBLISHED, ROOT.parent / "shared/data/openai-openapi.json") if p.is_file()), None
    )
    if found is None:
        pytest.skip("OpenAI's description is not beside the project")
    return json.loads(found.read_text("utf-8"))


def judged(published: dict[str, Any], schema: str, value: Any) -> None:
    """By a schema of OpenAI's description, in which `nullable` says what may be null."""
    of = nulls({"components": published["components"], "$ref": f"#/components/schemas/{schema}"})
    jsonschema.Draft202012Validator(of).validate(value)


def nulls(value: Any) -> Any:
    if isinstance(value, list):
        return [nulls(v) for v in value]
    if not isinstance(value, dict):
        return value
    inner = {k: nulls(v) for k, v in value.items() if k not in ("discriminator", "format")}
    return {"anyOf": [inner, {"type": "null"}]} if value.get("nullable") is True else inner


def test_bodies_are_as_openai_describes_them(server: Running, published: dict[str, Any]) -> None:
    asked = {"model": "tiny", "max_tokens": 4, "logprobs": True, "top_logprobs": 2}
    chat = {**asked, "messages": HI}
    judged(published, "CreateChatCompletionResponse", server.post("/v1/chat/completions", chat)[1])
    called = {"model": "tiny", "messages": HI, "tools": [short(TOOL)], "tool_choice": "required"}
    judged(published, "CreateChatCompletionResponse", server.post("/v1/chat/completions", called)[1])
    chat["stream_options"] = {"include_usage": True}
    for event in server.events("/v1/chat/completions", chat)[:-1]:
        judged(published, "CreateChatCompletionStreamResponse", json.loads(event.removeprefix("data: ")))
    text = {"model": "tiny", "prompt": "x", "max_tokens": 4, "logprobs": 2}
    judged(published, "CreateCompletionResponse", server.post("/v1/completions", text)[1])
    for event in server.events("/v1/completions", text)[:-1]:
        chunk = json.loads(event.removeprefix("data: "))
        for choice in chunk["choices"]:  # null before the end, as OpenAI sends it and does not describe it
            choice["finish_reason"] = choice["finish_reason"] or "stop"
        judged(published, "CreateCompletionResponse", chunk)
    vectors = {"model": "vectors", "input": "x"}
    judged(published, "CreateEmbeddingResponse", server.post("/v1/embeddings", vectors)[1])
    judged(published, "ListModelsResponse", server.get("/v1/models")[1])
    judged(published, "Model", server.get("/v1/models/tiny")[1])
    judged(published, "ErrorResponse", server.post("/v1/completions", {})[1])


# -- what the docs say -----------------------------------------------------------------------------

PAGE = ROOT / "docs" / "serving.md"
MARK = "<!-- from compiler/serve/fields.py -->\n"


def tables() -> str:
    """The docs' fields, by endpoint."""
    return "".join(f"\n### {e.path}\n\n{e.what}\n\n{table(e.body)}\n" for e in ENDPOINTS)


def test_the_docs_have_the_table_of_fields() -> None:
    text = PAGE.read_text("utf-8")
    head = text[: text.index(MARK) + len(MARK)]
    if os.environ.get("WAFERC_REFRESH"):
        PAGE.write_text(head + tables(), "utf-8")
    assert text[len(head) :] == tables()


def test_the_docs_examples_run(server: Running) -> None:
    text = PAGE.read_text("utf-8")
    python, shell = (re.findall(rf"```{kind}\n(.*?)```", text, re.DOTALL)[0] for kind in ("python", "sh"))
    for block in (python, shell):
        assert len([line for line in block.splitlines() if line and not line.startswith("import")]) <= 5

    def here(block: str) -> str:
        return block.replace("http://127.0.0.1:8000", server.address).replace("smollm2", "tiny")

    run = [sys.executable, "-c", here(python)]
    assert subprocess.run(run, check=True, capture_output=True).stdout
    done = subprocess.run(["sh", "-c", here(shell)], check=True, capture_output=True)
    assert json.loads(done.stdout)["object"] == "chat.completion"
