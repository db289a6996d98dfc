"""What a run gives, on the screen and in files: arrays, sequences, maps, optionals, str."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from ..errors import UsageError, quoted, shown
from .console import plain

if TYPE_CHECKING:
    from ...ir.op import Array

MOST_HEADER = 9000  # characters of keys: NumPy reads no header of more than 10,000 bytes
WIDTH = 80  # of a line


def write_outputs(path: str, results: Sequence[Mapping[str, Any]], many: bool) -> None:
    """Outputs by name to a .json file, or to an .npz. many: they gain a first axis that counts the calls.

    In JSON arrays and sequences are lists, maps are objects, an empty optional is null like what is not
    finite. In an .npz a map is a record with a field for each key, a sequence of maps with the same keys an
    array of records; of other sequences each element is an array NAME/0, NAME/1, ...; an empty optional is
    left out. Raises OSError; UsageError for what an .npz cannot hold.
    """
    from ...ir.disk import replacing
    from ..files import write_npz

    if not path.lower().endswith(".json"):
        write_npz(path, _stacked([_entries(r) for r in results], many))
        return
    whole = {n: [_jsonable(r[n]) for r in results] if many else _jsonable(v) for n, v in results[0].items()}
    with replacing(path) as part:
        part.write_text(json.dumps(plain(whole), indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _jsonable(value: Any) -> Any:
    """The value with arrays of types that NumPy lacks as arrays of ones that it has."""
    if isinstance(value, list):
        return [_jsonable(item) for item in cast(list[Any], value)]
    if getattr(getattr(value, "dtype", None), "isbuiltin", 1) == 2:  # ml_dtypes'
        from ...ir.dtypes import is_float

        return value.astype("f8" if is_float(value.dtype) else "i8")
    return value


# -- an .npz --------------------------------------------------------------------------------


def _entries(outputs: Mapping[str, Any]) -> dict[str, Array]:
    """The arrays that an .npz holds of one call."""
    out: dict[str, Array] = {}
    for name, value in outputs.items():
        for entry, array in _arrays(name, value):
            if entry in out:
                raise UsageError(
                    f"-o: two outputs have an array {quoted(entry)} in an .npz; write a .json file"
                )
            out[entry] = array
    return out


def _arrays(name: str, value: Any) -> list[tuple[str, Array]]:
    if value is None:
        return []
    if isinstance(value, dict):
        return [(name, _records(name, [cast(dict[Any, Any], value)])[0])]
    if not isinstance(value, list):
        return [(name, value.astype(str) if value.dtype.kind == "O" else value)]
    items = cast(list[Any], value)
    if _is_table(items):
        return [(name, _records(name, items))]
    return [found for i, item in enumerate(items) for found in _arrays(f"{name}/{i}", item)]


def _is_table(items: Sequence[Any]) -> bool:
    """Whether a sequence is one of maps with the same keys."""
    return bool(items) and all(isinstance(m, dict) and m.keys() == items[0].keys() for m in items)


def _records(name: str, maps: Sequence[Mapping[Any, Any]]) -> Any:
    """Maps with the same keys as an array of records, fields in the keys' order."""
    import numpy as np

    fields = [str(k) for k in maps[0]]
    if "" in fields or sum(len(f.encode()) + 20 for f in fields) > MOST_HEADER:
        why = f"{len(fields):,} keys, too many" if "" not in fields else "an empty key, not"
        raise UsageError(f"-o: output {quoted(name)} has maps with {why} for an .npz; write a .json file")
    columns = [np.asarray([m[k] for m in maps]) for k in maps[0]]
    kinds = [_least(c) for c in columns]
    out: Any = np.empty(len(maps), [*zip(fields, kinds, strict=True)])
    for f, c in zip(fields, columns, strict=True):
        out[f] = c
    return out


def _least(column: Any) -> Any:
    """The type of a column of Python's numbers: floats are ONNX's float, unless that loses something."""
    import numpy as np

    if column.dtype.kind != "f":
        return column.dtype if column.dtype.kind != "O" else np.asarray(column.astype(str)).dtype
    with np.errstate(over="ignore"):
        same = np.array_equal(column.astype(np.float32), column, equal_nan=True)
    return np.dtype(np.float32 if same else np.float64)


def _stacked(calls: Sequence[Mapping[str, Array]], many: bool) -> dict[str, Array]:
    """The calls' arrays along a new first axis. UsageError where not all calls give the same ones."""
    import numpy as np

    if not many:
        return dict(calls[0])
    out: dict[str, Array] = {}
    for name in dict.fromkeys(n for call in calls for n in call):
        values = [call[name] for call in calls if name in call]
        if len(values) < len(calls) or len({(v.shape, v.dtype.names) for v in values}) > 1:
            raise UsageError(
                f"-o: output {quoted(name)} has another shape in each call; "
                "run them one by one, or write a .json file"
            )
        out[name] = np.stack(values)
    return out


# -- words ------------------------------------------------------------------------------------


def described(value: Any) -> dict[str, Any]:
    """An output's type and shape, for JSON."""
    if value is None:
        return {"type": "none"}
    if isinstance(value, dict):
        return {"type": "map", "keys": list(map(str, cast(dict[Any, Any], value)))}
    if isinstance(value, list):
        items = cast(list[Any], value)
        return {"type": "sequence", "length": len(items), "of": described(items[0]) if items else None}
    return {"type": "str" if value.dtype.kind == "O" else value.dtype.name, "shape": value.shape}


def lines_of(outputs: Mapping[str, Any]) -> list[str]:
    """One line per output: type, shape and the first values."""
    lines: list[str] = []
    for name, value in outputs.items():
        text = f"{shown(name, 32)}  {_text(value)}"
        lines.append(text if len(text) <= WIDTH else text[: WIDTH - 4].rstrip() + " ...")
    return lines


def _text(value: Any) -> str:
    from ...ir.dtypes import is_float

    if value is None:
        return "none"
    if isinstance(value, dict):
        held = cast(dict[Any, Any], value)
        some = " ".join(
            f"{shown(str(k), 20)}: {_one(v, isinstance(v, float))}" for k, v in [*held.items()][:6]
        )
        return f"map of {len(held)}  {some}"
    if isinstance(value, list):
        items = cast(list[Any], value)
        return f"sequence of {len(items)}" + (f"  {_text(items[0])}" if items else "")
    some = " ".join(_one(v, is_float(value.dtype)) for v in value.ravel()[:6].tolist())
    return f"{value.dtype}{list(value.shape)}  {some}{' ...' if value.size > 6 else ''}"


def _one(value: Any, floating: bool) -> str:
    """One number or text."""
    return f"{value:.6g}" if floating else shown(str(value), 20)
