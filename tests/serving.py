"""A tiny decoder, and `waferc serve` on it as a process of its own."""

from __future__ import annotations

import atexit
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
from language import CHAT, byte_tokenizer
from onnx import TensorProto, helper, numpy_helper
from test_cli import WAFERC, good
from waferc import compile_model

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples" / "smollm2"))

from decoder import Shape, decoder, random_weights

SHAPE = Shape(1, 16, 32, 2, 1, 8, vocabulary=262, positions=520)
CAPACITY = 512
PATIENCE = 60.0  # seconds


@cache
def program() -> Path:
    """tiny.wafer: every byte is a token, weights are random, texts are nonsense."""
    folder = _folder()
    model = folder / "tiny.onnx"
    model.write_bytes(decoder(SHAPE, random_weights(5)).SerializeToString())
    entries = {"prefill": {"S": 8}, "decode": {"S": 1}}
    compiled = compile_model(model, wafer="4x4", capacity=CAPACITY, entries=entries)
    words = {"tokenizer.json": byte_tokenizer(), "chat_template.jinja": CHAT.encode()}
    compiled.save(folder / "tiny.wafer", beside=words)
    return folder / "tiny.wafer"


@cache
def encoder() -> Path:
    """vectors.wafer: a table of vectors [262, 8], each plus the mean of all, for up to 16 tokens."""
    words = np.random.default_rng(3).normal(size=(262, 8)).astype(np.float32)
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, [1, 16])
    mask = helper.make_tensor_value_info("attention_mask", TensorProto.INT64, [1, 16])
    out = helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, [1, 16, 8])
    nodes = [
        helper.make_node("Gather", ["words", "input_ids"], ["rows"]),
        helper.make_node("Cast", ["attention_mask"], ["there"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["there", "last"], ["column"]),
        helper.make_node("Mul", ["rows", "column"], ["last_hidden_state"]),
    ]
    values = [numpy_helper.from_array(words, "words"), numpy_helper.from_array(np.array([2]), "last")]
    graph = helper.make_graph(nodes, "vectors", [ids, mask], [out], values)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path, words, made = (_folder() / name for name in ("vectors.onnx", "tokenizer.json", "vectors.wafer"))
    path.write_bytes(model.SerializeToString())
    words.write_bytes(byte_tokenizer())
    good("compile", str(path), "--wafer", "4x4", "--tokenizer", str(words), "-o", str(made))
    return made


@cache
def _folder() -> Path:
    folder = tempfile.mkdtemp(prefix="waferc-serving-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


@dataclass
class Running:
    """A server at a port of 127.0.0.1."""

    process: subprocess.Popen[str]
    port: int

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def raw(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """(status, headers, content) of a request, whatever it holds."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request(method, path, body, dict(headers or {}))
            answer = connection.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def get(self, path: str) -> tuple[int, Any]:
        status, _, content = self.raw("GET", path)
        return status, json.loads(content)

    def post(self, path: str, body: Any, **headers: str) -> tuple[int, Any]:
        """(status, value) of a request whose body is JSON, or bytes."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        named = {"content-type": "application/json", **headers}
        status, _, answer = self.raw("POST", path, content, named)
        return status, json.loads(answer)

    def events(self, path: str, body: Mapping[str, Any]) -> list[str]:
        """What a stream says, event by event."""
        sent = json.dumps({**body, "stream": True}).encode()
        status, headers, content = self.raw("POST", path, sent, {"content-type": "application/json"})
        assert status == 200 and headers["content-type"].startswith("text/event-stream"), content
        return [e for e in content.decode().split("\n\n") if e and not e.startswith(":")]

    def metric(self, name: str) -> float:
        """The sum over its labels."""
        _, _, content = self.raw("GET", "/metrics")
        lines = [line.rpartition(" ") for line in content.decode().splitlines() if line[:1] != "#"]
        return sum(float(value) for label, _, value in lines if label.partition("{")[0] == name)

    def settles(self, name: str, value: float) -> None:
        """Waits until a metric has a value."""
        end = time.monotonic() + PATIENCE
        while self.metric(name) != value:
            assert time.monotonic() < end, f"{name} is {self.metric(name)}, not {value}"
            time.sleep(0.02)

    def end(self, number: int = signal.SIGTERM) -> int:
        """The exit code after a signal."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)


@contextmanager
def serving(*words: str | Path, env: Mapping[str, str] | None = None) -> Generator[Running]:
    """A server of these programs, with these options, at a port that is free."""
    command = [WAFERC, "serve", *map(str, words), "--port", "0", "--threads", "1"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(env or {})},
    )
    try:
        yield Running(process, _port(process))
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.communicate()


def _port(process: subprocess.Popen[str]) -> int:
    """What the server's first line says."""
    assert process.stdout is not None and process.stderr is not None
    with selectors.DefaultSelector() as waiting:
        waiting.register(process.stdout, selectors.EVENT_READ)
        assert waiting.select(PATIENCE), "the server says nothing"
    line = process.stdout.readline()
    assert line.startswith("serving "), process.stderr.read()
    return int(line.rstrip().rpartition(":")[2])
