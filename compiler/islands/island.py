"""GPUs, servers of them, and the engines that run on them, with where each constant is from."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, cast, get_args

from ...ir.disk import read_regular
from ...placement.machine.presets import preset
from ...placement.machine.wafer import Wafer
from ..errors import InvalidInput, UsageError, quoted

FILE = Path(__file__).parent / "machines.toml"
MOST_BYTES = 1 << 20  # of a file of machines
MOST_GPUS = 1 << 12
How = Literal["published", "fitted", "assumed"]


@dataclass(frozen=True)
class Origin:
    """Where a constant is from: a source, the rows that it is fitted to, or a reason."""

    how: How
    of: str


@dataclass(frozen=True)
class Gpu:
    """bandwidth: bytes a second of memory. operations: a second, of 16-bit products; operations_8: of those
    of 8 bits or fewer. link: bytes a second to the other GPUs of its server, one way. watts, dollars (an
    hour): of a GPU's part of its server. servers: how many GPUs the presets have.
    """

    name: str
    bandwidth: float
    memory: float
    operations: float
    operations_8: float
    link: float
    watts: float
    dollars: float
    origins: Mapping[str, Origin] = field(default_factory=dict[str, Origin], repr=False, hash=False)
    servers: tuple[int, ...] = (1, 8)


@dataclass(frozen=True)
class Engine:
    """What software makes of a GPU: see `machines.toml`."""

    name: str
    share: float
    share_8: float
    share_4: float
    busy: float
    launch: float
    gather: float
    across: float
    network: float
    origins: Mapping[str, Origin] = field(default_factory=dict[str, Origin], repr=False, hash=False)

    def reached(self, bits: float) -> float:
        """Share of the bandwidth for weights of so many bits."""
        return self.share * (1.0 if bits > 9 else self.share_8 if bits > 6 else self.share_4)


@dataclass(frozen=True)
class System:
    """What a wafer stands in, and several of them behind one another: see `machines.toml`."""

    name: str
    watts: float
    dollars: float
    fill: float
    hand_over: float
    link: float
    crossing: float
    crossing_least: float
    crossing_most: float
    slow: float
    origins: Mapping[str, Origin] = field(default_factory=dict[str, Origin], repr=False, hash=False)


@dataclass(frozen=True)
class Island:
    """`nodes` servers of `each` GPUs."""

    gpu: Gpu
    each: int
    nodes: int = 1

    @property
    def gpus(self) -> int:
        return self.each * self.nodes

    @property
    def name(self) -> str:
        return f"{self.gpu.name} x {f'{self.nodes}x' if self.nodes > 1 else ''}{self.each}"

    @property
    def memory(self) -> float:
        return self.gpus * self.gpu.memory


@dataclass(frozen=True)
class Machines:
    gpus: Mapping[str, Gpu]
    engines: Mapping[str, Engine]
    systems: Mapping[str, System]

    def all(self, kind: str) -> Mapping[str, Any]:
        return {"gpu": self.gpus, "engine": self.engines, "system": self.systems}[kind]

    def system(self, wafer: Wafer) -> System:
        """That of a preset; of another wafer wse3's, of whose watts and dollars it has its cores' part."""
        if wafer.name in self.systems:
            return self.systems[wafer.name]
        whole = self.systems["wse3"]
        part = wafer.cores / preset("wse3").cores
        return replace(whole, name=wafer.name, watts=whole.watts * part, dollars=whole.dollars * part)

    def presets(self) -> list[Island]:
        return [made(g, n) for g in self.gpus.values() for n in g.servers]


NODE = 8  # GPUs of a server
NAME = re.compile(
    r"(?:(?P<front>\d+(?:x\d+)?)\s*x\s*)?(?P<gpu>[a-z][a-z0-9]*?)(?:-\d+(?:gb)?)?(?:\s*x\s*(?P<back>\d+(?:x\d+)?))?"
)


def made(gpu: Gpu, count: int) -> Island:
    """So many GPUs in servers of eight."""
    return Island(gpu, count) if count <= NODE else Island(gpu, NODE, -(-count // NODE))


def island(name: str, machines: Machines | None = None) -> Island:
    """An island by name: "A100 x 8", "2x8xA100", "H100". Raises UsageError."""
    known = machines or builtin()
    found = NAME.fullmatch(" ".join(name.lower().split()))
    gpus = {g.lower(): of for g, of in known.gpus.items()}
    if found is None or found["gpu"] not in gpus or (found["front"] and found["back"]):
        raise UsageError(
            f"no island is called {quoted(name)}; try {', '.join(i.name for i in known.presets())}"
        )
    numbers = [int(n) for n in (found["front"] or found["back"] or "1").split("x")]
    nodes, each = numbers if len(numbers) == 2 else (1, numbers[0])
    if min(each, nodes) < 1 or each * nodes > MOST_GPUS:
        raise UsageError(f"island {quoted(name)}: {each * nodes:,} GPUs; 1 to {MOST_GPUS:,} can be priced")
    if len(numbers) == 1:
        return made(gpus[found["gpu"]], each)
    return Island(gpus[found["gpu"]], each, nodes)


def engine(name: str, machines: Machines | None = None) -> Engine:
    """An engine by the first word of `name`. Raises UsageError."""
    known = (machines or builtin()).engines
    wanted = name.split(" ")[0].split("(")[0].lower()
    for key, of in known.items():
        if key.lower() == wanted:
            return of
    raise UsageError(f"no engine is called {quoted(name)}; known: {', '.join(known)}")


# -- files ------------------------------------------------------------------------------------------------
def parse(text: str, where: str) -> Machines:
    """GPUs and engines from TOML, constants as in `machines.toml`. `base = "NAME"` takes what is not given
    from a known one. Raises InvalidInput."""
    try:
        data: dict[str, Any] = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as e:
        raise InvalidInput(f"{where}: not TOML: {e}") from None
    if unknown := sorted(set(data) - set(KINDS)):
        raise InvalidInput(f"{where}: unknown table {quoted(unknown[0])}; known are {', '.join(KINDS)}")
    found: dict[str, dict[str, Any]] = {}
    for kind, of in KINDS.items():
        made = found[kind] = {}
        for name, table in _tables(data, kind, where).items():
            known = made if where == FILE.name else {**builtin().all(kind), **made}
            made[name] = _read(of, name, table, where, known)
    return Machines(*(found[kind] for kind in KINDS))


def _tables(data: Mapping[str, Any], key: str, where: str) -> dict[str, dict[str, Any]]:
    found = data.get(key, {})
    if not isinstance(found, dict) or not all(
        isinstance(t, dict) for t in cast(dict[str, Any], found).values()
    ):
        raise InvalidInput(f"{where}: {key} is not a table of tables")
    return cast(dict[str, dict[str, Any]], found)


def _read(kind: type[Any], name: str, table: Mapping[str, Any], where: str, others: Mapping[str, Any]) -> Any:
    """One of `kind`, which may take what is not given from one of `others`."""
    given = dict(table)
    base, servers = given.pop("base", None), given.pop("servers", None)
    known = [f.name for f in fields(kind) if f.type == "float"]
    values: dict[str, float] = {}
    origins: dict[str, Origin] = {}
    for key, entry in given.items():
        if key not in known:
            raise InvalidInput(f"{where}: {name} has no {quoted(key)}; known: {', '.join(known)}")
        values[key], origins[key] = _constant(entry, f"{where}: {name}.{key}")
    if base is not None:
        if base not in others:
            raise InvalidInput(f"{where}: {name}: no base {quoted(str(base))}; known: {', '.join(others)}")
        start = others[base]
        made = replace(start, name=name, **values, origins={**start.origins, **origins})
    elif missing := [k for k in known if k not in values]:
        raise InvalidInput(f"{where}: {name} needs {missing[0]}")
    else:
        made = kind(name=name, **values, origins=origins)
    if servers is None:
        return made
    counts = cast(list[Any], servers) if isinstance(servers, list) else [None]
    if kind is not Gpu or not all(type(n) is int and 1 <= n <= MOST_GPUS for n in counts):
        raise InvalidInput(f"{where}: {name}: servers is a list of numbers of GPUs")
    return replace(made, servers=tuple(counts))


def _constant(entry: Any, where: str) -> tuple[float, Origin]:
    """{ value, how, of }."""
    if not isinstance(entry, dict) or set(cast(dict[str, Any], entry)) != {"value", "how", "of"}:
        raise InvalidInput(f"{where} is not {{ value = NUMBER, how = ..., of = ... }}")
    given = cast(dict[str, Any], entry)
    value, how = given["value"], given["how"]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e18:
        raise InvalidInput(f"{where}: value is {quoted(str(value))}, not a number above 0")
    if how not in get_args(How):
        raise InvalidInput(f"{where}: how is one of {', '.join(get_args(How))}, not {quoted(str(how))}")
    return float(value), Origin(how, str(given["of"]))


KINDS: Mapping[str, type[Any]] = {"gpu": Gpu, "engine": Engine, "system": System}


@cache
def builtin() -> Machines:
    return parse(FILE.read_text("utf-8"), FILE.name)


def load(path: str | Path) -> Machines:
    """The known machines, and those of a file. Raises InvalidInput, OSError."""
    try:
        own = parse(read_regular(Path(path), MOST_BYTES).decode(), quoted(str(path)))
    except UnicodeDecodeError as e:
        raise InvalidInput(f"{quoted(str(path))}: not TOML: {e}") from None
    known = builtin()
    return Machines(*({**known.all(kind), **own.all(kind)} for kind in KINDS))
