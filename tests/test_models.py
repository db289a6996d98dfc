"""The real models, compiled, run and verified as a user does it, on a whole wafer and on a small one."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
import zoo

ROOT = Path(__file__).resolve().parent.parent
MODELS = ROOT / "build" / "models"
DIGITS = ROOT / "examples" / "digits"


@dataclass(frozen=True)
class Case:
    """A model with its dimensions bound. real: flags that give it real inputs; none for digits."""

    name: str
    model: Path
    wafer: str
    binding: tuple[str, ...] = ()
    real: tuple[str, ...] = ()


def bound(**dims: int) -> tuple[str, ...]:
    return tuple(word for name, n in dims.items() for word in ("--dim", f"{name}={n}"))


def cases() -> list[Case]:
    out: list[Case] = []
    for wafer in ("wse3", "16x16"):
        for batch in (1, 16):
            out.append(Case(f"digits-{batch}", DIGITS / "digits.onnx", wafer, bound(batch=batch)))
        state = ("--state", "state=stateN")
        steps = ("--steps", str(MODELS / "silero_steps.npz"))
        out.append(Case("silero", MODELS / "silero_vad_openvino_16k.onnx", wafer, state, steps))
    for wafer in ("wse3", "32x32"):
        real = ("--inputs", str(MODELS / "magika_license.npz"))
        out.append(Case("magika", MODELS / "magika.onnx", wafer, bound(unk__214=1), real))
    for wafer in ("wse3", "64x64"):
        for length in (16, 128):
            binding = bound(batch_size=1, sequence_length=length)
            real = ("--inputs", str(MODELS / f"minilm_{length}.npz"))
            out.append(
                Case(f"minilm-{length}", MODELS / "paraphrase-MiniLM-L3-v2.onnx", wafer, binding, real)
            )
    return out


pytestmark = [
    pytest.mark.models,
    pytest.mark.skipif(not MODELS.exists(), reason="make models fetches them"),
]


def waferc(*words: str | Path) -> str:
    """Standard output of one command, which must succeed."""
    command = [Path(sys.executable).with_name("waferc"), *words]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}"
    return done.stdout


def real_inputs(case: Case, folder: Path) -> tuple[str, ...]:
    """The case's own flags; for digits, held-out images in batches."""
    if not case.name.startswith("digits"):
        return case.real
    batch = int(case.name.removeprefix("digits-"))
    with np.load(DIGITS / "digits_test.npz") as test:
        np.savez(folder / "images.npz", image=test["image"][: batch * 4].reshape(4, batch, 1, 8, 8))
    return "--steps", str(folder / "images.npz")


def same(a: Path, b: Path) -> bool:
    """Equal arrays, bit by bit."""
    with np.load(a) as x, np.load(b) as y:
        return x.files == y.files and all(x[k].tobytes() == y[k].tobytes() for k in x.files)


@pytest.mark.parametrize("case", cases(), ids=lambda c: f"{c.name}-{c.wafer}")
def test_model(case: Case, tmp_path: Path) -> None:
    program, again = tmp_path / "a.wafer", tmp_path / "b.wafer"
    for path in (program, again):
        waferc("compile", case.model, "--wafer", case.wafer, "--no-host", *case.binding, "-o", path)
    assert program.read_bytes() == again.read_bytes()
    again.unlink()

    real = real_inputs(case, tmp_path)
    waferc("verify", case.model, "--program", program, "--random", "0")
    waferc("verify", case.model, "--program", program, *real)

    outputs = {name: tmp_path / f"{name}.npz" for name in ("one", "two", "repeat", "guard")}
    waferc("run", program, *real, "--threads", "1", "-o", outputs["one"])
    waferc("run", program, *real, "--threads", "2", "-o", outputs["two"])
    waferc("run", program, *real, "--threads", "2", "-o", outputs["repeat"])
    waferc("run", program, *real, "--guard", "-o", outputs["guard"])
    for name in ("two", "repeat", "guard"):
        assert same(outputs["one"], outputs[name]), name


@pytest.mark.parametrize("wafer", ["small", zoo.WHOLE])
@pytest.mark.parametrize("model", [m for m in zoo.models() if m.tested], ids=lambda m: m.name)
def test_models_of_wheels_verify_as_they_are(model: zoo.Model, wafer: str) -> None:
    said, _ = zoo.measured(model, model.wafer if wafer == "small" else wafer)
    assert not said.get("host")


LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"


@pytest.mark.parametrize("path", sorted(LIGHT.glob("*.onnx")), ids=lambda p: p.stem)
def test_light_models_of_onnx_run_on_a_whole_wafer(path: Path, tmp_path: Path) -> None:
    """Their weights are constants: what they check is import and scale."""
    program = tmp_path / "a.wafer"
    waferc("compile", path, "--wafer", "wse3", "--no-host", "-o", program)
    waferc("verify", path, "--program", program)
