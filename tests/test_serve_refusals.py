"""What `waferc serve` refuses, and how; many clients at once, clients that go away, and its end."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import openai
import pytest
from serving import CAPACITY, Running, encoder, program, serving
from test_cli import WAFERC, waferc
from waferc import LanguageModel
from waferc.compiler.serve.fields import ENDPOINTS

HI = [{"role": "user", "content": "Hi"}]
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
EMBEDDINGS, RESPONSES = "/v1/embeddings", "/v1/responses"


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with serving(program(), encoder()) as running:
        yield running


def refused(server: Running, path: str, body: Any, status: int = 400) -> tuple[str, str | None]:
    """(message, param) of a refusal, in the shape of OpenAI's."""
    got, answer = server.post(path, body)
    assert got == status, answer
    error = answer["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["message"]
    return error["message"], error["param"]


# -- bodies that are none --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\x00\xff\xfe", b'{"model": NaN}', b'{"a":' * 20_000, b'{"model": "\\ud800"}', b"1e999"],
    ids=["empty", "cut", "binary", "nan", "deep", "half", "infinite"],
)
@pytest.mark.parametrize("path", [e.path for e in ENDPOINTS])
def test_what_is_no_json(server: Running, path: str, body: bytes) -> None:
    assert refused(server, path, body)[0].startswith("the body is no JSON: ")


@pytest.mark.parametrize("value", [None, [], 3, "text", True])
def test_what_is_no_object(server: Running, value: Any) -> None:
    assert refused(server, CHAT, value)[0] == "the body is no JSON object"


def test_a_body_that_is_too_large(server: Running) -> None:
    large = b'{"model": "' + b"x" * (5 << 20) + b'"}'
    assert refused(server, CHAT, large, 413)[0] == "the body has more than 4,194,304 bytes"
    # One that does not say how large it is, 200 MB of it.
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as s:
        s.sendall(
            b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            b"transfer-encoding: chunked\r\n\r\n"
        )
        with suppress(OSError):  # nobody reads it any more
            for _ in range(200):
                s.sendall(b"100000\r\n" + b"x" * (1 << 20) + b"\r\n")
        s.settimeout(30)
        with suppress(ConnectionError):
            assert b" 413 " in s.recv(1000)
    assert server.get("/health")[0] == 200


def test_a_body_of_another_type(server: Running) -> None:
    for kind in ("text/plain", "", "application/x-www-form-urlencoded"):
        status, _, answer = server.raw("POST", CHAT, b"{}", {"content-type": kind})
        assert status == 415 and b"content-type" in answer


def test_addresses_and_methods_that_are_not_there(server: Running) -> None:
    assert server.get("/v1/files")[0] == 404
    assert server.post("/v1/models", {})[0] == 405
    assert server.get("/v1/models/gpt%2f4o%20x")[1]["error"]["code"] == "model_not_found"


# -- fields ----------------------------------------------------------------------------------------

WRONG: list[tuple[str, dict[str, Any], str]] = [
    (CHAT, {"messages": None}, "messages"),
    (CHAT, {"messages": "string"}, "messages"),
    (CHAT, {"messages": []}, "messages"),
    (CHAT, {"messages": [123]}, "messages[0]"),
    (CHAT, {"messages": [{}]}, "messages[0].role"),
    (CHAT, {"messages": [{"role": 123, "content": "x"}]}, "messages[0].role"),
    (CHAT, {"messages": [{"role": "user", "content": 123}]}, "messages[0].content"),
    (CHAT, {"messages": [{"role": "user"}]}, "messages[0].content"),
    (CHAT, {"messages": [{"role": "nobody", "content": "x"}]}, "messages[0].role"),
    (CHAT, {"messages": [{"role": "user", "content": "x", "mood": 1}]}, "messages[0].mood"),
    (
        CHAT,
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
        "messages[0].content[0].type",
    ),
    (CHAT, {"messages": [*HI, *[{"role": "assistant", "content": "x"}] * 2]}, "messages"),
    (CHAT, {"messages": [{"role": "user", "content": "x" * 1000}]}, "messages"),
    (CHAT, {"temperature": "hot"}, "temperature"),
    (CHAT, {"temperature": 2.1}, "temperature"),
    (CHAT, {"temperature": True}, "temperature"),
    (CHAT, {"top_p": -0.1}, "top_p"),
    (CHAT, {"n": 0}, "n"),
    (CHAT, {"n": 100}, "n"),
    (CHAT, {"n": 1.5}, "n"),
    (CHAT, {"max_tokens": 0}, "max_tokens"),
    (CHAT, {"max_tokens": CAPACITY}, "max_tokens"),
    (CHAT, {"max_completion_tokens": 10**9}, "max_completion_tokens"),
    (CHAT, {"max_tokens": 10**400}, "max_tokens"),
    (CHAT, {"seed": 1 << 63}, "seed"),
    (CHAT, {"stop": ["a"] * 5}, "stop"),
    (CHAT, {"stop": ""}, "stop"),
    (CHAT, {"stop": 3}, "stop"),
    (CHAT, {"logit_bias": {"x": 1}}, "logit_bias"),
    (CHAT, {"logit_bias": {"262": 1}}, "logit_bias"),
    (CHAT, {"logit_bias": {"1": 101}}, "logit_bias.1"),
    (CHAT, {"top_logprobs": 2}, "top_logprobs"),
    (CHAT, {"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    (CHAT, {"stream": "yes"}, "stream"),
    (CHAT, {"stream_options": {"include_usage": True}}, "stream_options"),
    (CHAT, {"audio": {"voice": "alloy"}}, "audio"),
    (CHAT, {"modalities": ["audio"]}, "modalities"),
    (CHAT, {"functions": []}, "functions"),
    (CHAT, {"web_search_options": {}}, "web_search_options"),
    (CHAT, {"mirostat": 2}, "mirostat"),
    (CHAT, {"response_format": {"type": "xml"}}, "response_format.type"),
    (CHAT, {"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
    (
        CHAT,
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "odd"}}}},
        "response_format",
    ),
    (
        CHAT,
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "x", "schema": {"type": "string", "pattern": "^a$", "minLength": 5}},
            },
            "max_tokens": 9,
        },
        "response_format",
    ),
    (CHAT, {"tools": [{"type": "browser"}]}, "tools[0].type"),
    (CHAT, {"tool_choice": "required"}, "tool_choice"),
    (CHAT, {"tool_choice": {"type": "function", "function": {"name": "no"}}}, "tool_choice"),
    (CHAT, {"model": 7}, "model"),
    (CHAT, {"model": "vectors"}, "model"),
    (COMPLETIONS, {"prompt": ""}, "prompt"),
    (COMPLETIONS, {"prompt": []}, "prompt"),
    (COMPLETIONS, {"prompt": [[]]}, "prompt[0]"),
    (COMPLETIONS, {"prompt": [262]}, "prompt"),
    (COMPLETIONS, {"prompt": [-1]}, "prompt[0]"),
    (COMPLETIONS, {"prompt": [1, "x"]}, "prompt[1]"),
    (COMPLETIONS, {"prompt": {"text": "x"}}, "prompt"),
    (COMPLETIONS, {"prompt": [1] * (CAPACITY + 1)}, "prompt"),
    (COMPLETIONS, {"best_of": 3}, "best_of"),
    (COMPLETIONS, {"suffix": "end"}, "suffix"),
    (COMPLETIONS, {"logprobs": 6}, "logprobs"),
    (COMPLETIONS, {"logprobs": 1, "echo": True}, "logprobs"),
    (EMBEDDINGS, {"input": ""}, "input"),
    (EMBEDDINGS, {"input": "x" * 17}, "input"),
    (EMBEDDINGS, {"input": [[1], [1] * 17]}, "input[1]"),
    (EMBEDDINGS, {"input": [300]}, "input"),
    (EMBEDDINGS, {"encoding_format": "int8"}, "encoding_format"),
    (EMBEDDINGS, {"dimensions": 2}, "dimensions"),
    (EMBEDDINGS, {"model": "tiny"}, "model"),
    (RESPONSES, {"previous_response_id": "resp_1"}, "previous_response_id"),
    (
        RESPONSES,
        {"input": [{"role": "user", "content": [{"type": "input_image"}]}]},
        "input[0].content[0].type",
    ),
    (RESPONSES, {"tools": [{"type": "web_search"}]}, "tools[0].type"),
    (RESPONSES, {"background": True}, "background"),
]
PLAIN: Mapping[str, dict[str, Any]] = {
    CHAT: {"model": "tiny", "messages": HI, "max_tokens": 1},
    COMPLETIONS: {"model": "tiny", "prompt": "x", "max_tokens": 1},
    EMBEDDINGS: {"model": "vectors", "input": "x"},
    RESPONSES: {"model": "tiny", "input": "Hi", "max_output_tokens": 1},
}


def test_what_is_wrong_is_named(server: Running) -> None:
    for path, wrong, param in WRONG:
        body = {**PLAIN[path], **wrong}
        if "max_completion_tokens" in wrong:
            del body["max_tokens"]
        message, named = refused(server, path, body)
        assert named == param, (wrong, message)
    for path, body in PLAIN.items():
        assert server.post(path, body)[0] == 200
        assert refused(server, path, {**body, "model": "gpt-4o"}, 404)[1] == "model"
        for name in body.keys() - {"max_tokens", "max_output_tokens"}:
            rest = {k: v for k, v in body.items() if k != name}
            assert refused(server, path, rest)[1] == name


def test_fields_that_cannot_change_an_answer_are_let_through(server: Running) -> None:
    for endpoint in ENDPOINTS:
        more = {f.name: "anything" for f in endpoint.body.fields if f.support == "ignored"}
        none = {
            f.name: None
            for f in endpoint.body.fields
            if not f.required and f.name not in PLAIN[endpoint.path]
        }
        assert server.post(endpoint.path, {**none, **more, **PLAIN[endpoint.path]})[0] == 200


def test_names_of_a_client_do_not_leave_their_line(server: Running) -> None:
    message, param = refused(server, CHAT, {**PLAIN[CHAT], "a\n\x1b[31m" + "b" * 500: 1})
    assert message.isprintable() and param is not None and param.isprintable() and len(param) <= 100


# -- keys, hosts, origins --------------------------------------------------------------------------


def test_a_key_and_hosts_and_origins() -> None:
    words = ("--allow-origin", "http://page.example", "--queue", "0")
    with serving(program(), *words, env={"WAFERC_API_KEY": "secret"}) as server:
        assert server.get("/v1/models")[0] == 401 and server.get("/health")[0] == 200
        assert server.raw("GET", "/metrics")[0] == 401
        for wrong in ("Bearer other", "secret", "Bearer ", "Bearer s\u00e9cret"):
            status, headers, _ = server.raw("GET", "/v1/models", headers={"authorization": wrong})
            assert status == 401 and headers["www-authenticate"] == "Bearer"
        right = {"authorization": "Bearer secret"}
        assert server.raw("GET", "/v1/models", headers=right)[0] == 200
        # Another name for this machine, as pages elsewhere may give it.
        assert server.raw("GET", "/v1/models", headers={**right, "host": "evil.example"})[0] == 400
        asks = {"origin": "http://page.example", "access-control-request-method": "POST"}
        asks["access-control-request-headers"] = "authorization"
        _, headers, _ = server.raw("OPTIONS", CHAT, headers=asks)
        assert headers["access-control-allow-origin"] == "http://page.example"
        _, headers, _ = server.raw("OPTIONS", CHAT, headers={**asks, "origin": "http://evil.example"})
        assert "access-control-allow-origin" not in headers


# -- many at once ----------------------------------------------------------------------------------


async def crowd(server: Running, clients: int, requests: int) -> list[tuple[int, str]]:
    """(number, answer) of so many requests from so many clients, each of which asks one after the other."""
    numbers = iter(range(requests))

    async def one() -> list[tuple[int, str]]:
        found: list[tuple[int, str]] = []
        async with openai.AsyncOpenAI(base_url=f"{server.address}/v1", api_key="any") as client:
            for i in numbers:
                asked: Any = {"model": "tiny", "prompt": prompt_of(i), "max_tokens": 5, "temperature": 0}
                if i % 3:
                    answer = await client.completions.create(**asked)
                    found.append((i, answer.choices[0].text))
                else:
                    stream = await client.completions.create(stream=True, **asked)
                    found.append((i, "".join([c.choices[0].text async for c in stream])))
        return found

    return [pair for part in await asyncio.gather(*(one() for _ in range(clients))) for pair in part]


def prompt_of(number: int) -> str:
    return f"{number % 17} " + "tea " * (number % 5)


def answers() -> dict[str, str]:
    model = LanguageModel(program())
    prompts = {prompt_of(i) for i in range(17 * 5)}
    return {p: model.generate(p, max_tokens=5).text for p in prompts}


def resident(process: int) -> int:
    """Kilobytes of memory."""
    with open(f"/proc/{process}/status", encoding="ascii") as f:
        return int(next(line for line in f if line.startswith("VmRSS")).split()[1])


def test_two_hundred_requests_from_eight_clients(server: Running) -> None:
    wanted, found = answers(), asyncio.run(crowd(server, 8, 200))
    assert sorted(i for i, _ in found) == list(range(200))
    assert [i for i, text in found if text != wanted[prompt_of(i)]] == []


@pytest.mark.thorough
def test_a_thousand_requests_leave_no_memory_behind(server: Running) -> None:
    wanted = answers()
    asyncio.run(crowd(server, 16, 300))
    before = resident(server.process.pid)
    found = asyncio.run(crowd(server, 16, 1000))
    assert [i for i, text in found if text != wanted[prompt_of(i)]] == []
    assert resident(server.process.pid) < before + 8192


TEXTS = 8  # of a client that takes long


def endless(server: Running, stream: bool = True) -> socket.socket:
    """A client that asks for a text as long as the caches hold, some times over."""
    body = {"model": "tiny", "prompt": ["x"] * TEXTS, "max_tokens": CAPACITY, "stream": stream}
    content = json.dumps({**body, "logit_bias": {"0": -100, "2": -100}}).encode()
    head = f"POST {COMPLETIONS} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    client = socket.create_connection(("127.0.0.1", server.port), timeout=30)
    client.sendall(f"{head}content-length: {len(content)}\r\n\r\n".encode() + content)
    return client


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_frees_its_slot(server: Running, stream: bool) -> None:
    before = server.metric("waferc_generated_tokens_total")
    client = endless(server, stream)
    if stream:
        assert b"200 OK" in client.recv(4096)
    else:
        server.settles("waferc_slots_busy", 4)
    client.close()
    server.settles("waferc_slots_busy", 0)
    assert server.metric("waferc_texts_waiting") == 0
    assert server.metric("waferc_generated_tokens_total") < before + TEXTS * (CAPACITY - 1)
    assert server.post(COMPLETIONS, PLAIN[COMPLETIONS])[0] == 200


def test_a_client_that_is_killed_frees_its_slot(server: Running) -> None:
    asked = json.dumps({"model": "tiny", "prompt": ["x"] * TEXTS, "max_tokens": CAPACITY, "stream": True})
    head = ["-H", "content-type: application/json", "-d", asked]
    with subprocess.Popen(
        ["curl", "-sN", *head, server.address + COMPLETIONS], stdout=subprocess.PIPE
    ) as client:
        assert client.stdout is not None and client.stdout.read(100)
        client.send_signal(signal.SIGKILL)
    server.settles("waferc_slots_busy", 0)
    assert server.post(COMPLETIONS, PLAIN[COMPLETIONS])[0] == 200


def test_who_comes_when_all_is_full_may_come_again() -> None:
    with serving(program(), "--queue", "1", "--slots", "1") as server:
        with endless(server) as first:
            assert b"200 OK" in first.recv(4096)
            sent = json.dumps(PLAIN[COMPLETIONS]).encode()
            status, headers, content = server.raw(
                "POST", COMPLETIONS, sent, {"content-type": "application/json"}
            )
            assert status == 429 and headers["retry-after"] == "1", content
            assert json.loads(content)["error"]["code"] == "rate_limit_exceeded"
        server.settles("waferc_texts_waiting", 0)
        assert server.post(COMPLETIONS, PLAIN[COMPLETIONS])[0] == 200


# -- beginning and end -----------------------------------------------------------------------------


def test_it_finishes_what_is_under_way_when_told_to_end() -> None:
    with serving(program()) as server:
        client = endless(server)
        first = client.recv(4096)
        assert b"200 OK" in first
        server.process.send_signal(signal.SIGTERM)
        content = first
        while part := client.recv(1 << 16):
            content += part
        assert b"data: [DONE]" in content and content.count(b'"finish_reason":"length"') == TEXTS
        assert server.process.wait(60) == 0
        assert server.process.stderr is not None and server.process.stderr.read() == ""


def test_it_ends_at_once_when_told_so() -> None:
    with serving(program(), "--grace", "0") as server, endless(server) as client:
        assert b"200 OK" in client.recv(4096)
        assert server.end() == 0


def test_what_cannot_be_served(tmp_path: Path) -> None:
    (tmp_path / "no.wafer").write_bytes(b"PK\x03\x04 no")
    for words, code, said in (
        ((str(tmp_path / "no.wafer"),), 7, "no.wafer"),
        (("gone.wafer",), 6, "gone.wafer"),
        ((str(program()), str(program())), 2, "two models are called 'tiny'"),
        ((str(program()), "--host", "256.0.0.1"), 6, ""),
        ((str(program()), "--api-key", ""), 2, "--api-key is empty"),
        ((str(program()), "--port", "70000"), 2, "70000"),
    ):
        done = waferc("serve", *words, "--port", "0") if "--port" not in words else waferc("serve", *words)
        assert done.exit_code == code and said in done.stderr and "Traceback" not in done.stderr, done.stderr
        assert done.stderr.count("\n") == 1


def test_a_port_that_is_taken(server: Running) -> None:
    command = [WAFERC, "serve", str(program()), "--port", str(server.port)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 6 and done.stderr.startswith("waferc: error: ")


# -- what schemathesis thinks of -------------------------------------------------------------------


@pytest.mark.thorough
def test_no_request_is_a_bug_of_ours(server: Running, tmp_path: Path) -> None:
    """Two thousand, of which some fit the description and some do not."""
    command = ["schemathesis", "run", f"{server.address}/openapi.json", "--checks", "not_a_server_error"]
    command += ["--phases", "fuzzing", "--mode", "all", "--max-examples", "500", "--seed", "1"]
    command[0] = str(WAFERC.parent / "schemathesis")
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert server.get("/health")[0] == 200
