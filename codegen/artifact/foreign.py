"""What a file is that was given in place of another one: by its first bytes, else by its name.

Nothing is unpacked, unpickled or run.
"""

from __future__ import annotations

import json
import pickletools
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

HEAD = 1 << 16  # bytes that are looked at
CONVERT = "export its model to ONNX"
TORCH = "export its model with torch.onnx.export"
TENSORFLOW = "convert it with tf2onnx"
UNPACK = "unpack it first"
AGAIN = "fetch it again"


@dataclass(frozen=True)
class Kind:
    """A kind of file. advice: what to do with one that should be a model."""

    name: str
    advice: str


ARTIFACT = Kind("a waferc program or plan", "give the ONNX file that it was compiled from")
MODEL = Kind("an ONNX model", "compile it first, with 'waferc compile MODEL -o PROGRAM.wafer'")

# (where, bytes there, kind); of several that fit the first one.
MARKS: tuple[tuple[int, bytes, Kind], ...] = (
    (4, b"ORTM", Kind("an onnxruntime model (.ort)", "give the .onnx file that it was made of")),
    (4, b"TFL3", Kind("a TensorFlow Lite model", TENSORFLOW)),
    (4, b"ET12", Kind("an ExecuTorch program", TORCH)),
    (4, b"PTMF", Kind("a PyTorch mobile model", TORCH)),
    (0, b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", Kind("a PyTorch checkpoint (a pickle)", TORCH)),
    (0, b"GGUF", Kind("a GGUF file (weights without a graph)", f"{CONVERT} from where they came")),
    *((0, m, Kind("a GGML file (weights without a graph)", CONVERT)) for m in (b"lmgg", b"fmgg", b"tjgg")),
    (0, b"\x89HDF\r\n\x1a\n", Kind("an HDF5 file (Keras)", TENSORFLOW)),
    (0, b"ftrt", Kind("a TensorRT engine", "give the ONNX file that it was built from")),
    (0, b"\x93NUMPY", Kind("a NumPy array (.npy)", "give it to a run as --input NAME=FILE.npy")),
    (0, b"\x1f\x8b", Kind("a gzip file", "unpack it first, with gunzip or tar")),
    (0, b"BZh", Kind("a bzip2 file", UNPACK)),
    (0, b"\xfd7zXZ\0", Kind("an xz file", UNPACK)),
    (0, b"\x28\xb5\x2f\xfd", Kind("a zstd file", UNPACK)),
    (0, b"\x04\x22\x4d\x18", Kind("an lz4 file", UNPACK)),
    (0, b"7z\xbc\xaf\x27\x1c", Kind("a 7z archive", UNPACK)),
    (0, b"Rar!\x1a\x07", Kind("a rar archive", UNPACK)),
    (257, b"ustar", Kind("a tar archive", UNPACK)),
    (0, b"PK\x05\x06", Kind("an empty zip archive", AGAIN)),
    (0, b"\x89PNG\r\n", Kind("a picture (PNG)", "give the ONNX file")),
    (0, b"\xff\xd8\xff", Kind("a picture (JPEG)", "give the ONNX file")),
    (0, b"%PDF-", Kind("a PDF", "give the ONNX file")),
    (0, b"\x7fELF", Kind("a program or library of this system (ELF)", "give the ONNX file")),
    (0, b"BC\xc0\xde", Kind("LLVM bitcode", "give the ONNX file")),
)
NAMES: dict[str, Kind] = {
    ".mlmodel": Kind("a Core ML model", CONVERT),
    ".pdmodel": Kind("a PaddlePaddle model", "convert it with paddle2onnx"),
    ".caffemodel": Kind("a Caffe model", CONVERT),
}
# (what a text begins with, kind), in small letters
TEXTS: tuple[tuple[str, Kind], ...] = (
    (
        r"version https://git-lfs\.github\.com",
        Kind("a Git LFS pointer", "fetch the file itself with 'git lfs pull'"),
    ),
    (r"<!doctype html|<html", Kind("a web page", "fetch the file itself")),
    (r"(<\?xml.*?>\s*)?<net\b", Kind("an OpenVINO model (.xml)", "give the ONNX file that it was made of")),
    (r"<\?xml|<!--|<\w+[ >]", Kind("a text file (XML)", "give the ONNX file")),
    (r"<\s*(ir_version|opset_import)\s*:", Kind("the text of an ONNX model", "save it with onnx.save")),
    (
        r"(ir_version|producer_name|graph|opset_import)\s*[:{]",
        Kind("the text of an ONNX model (protobuf)", "save it with onnx.save, as protobuf"),
    ),
    (r"7767517\b", Kind("an ncnn model", CONVERT)),
)
TEXT = Kind("a text file", "give the ONNX file")
PICKLE = Kind("a Python pickle", "export its model: torch.onnx.export for PyTorch, skl2onnx for scikit-learn")


def kind_of(head: bytes, name: str = "") -> Kind | None:
    """What a file is, by its first `HEAD` bytes, or, where they tell nothing, by its name; None if unknown.

    Not for what reads as a model: the first bytes of one say little.
    """
    if head and not head.strip(b"\0"):
        return Kind("a file of zeros", AGAIN)
    for at, mark, kind in MARKS:
        if head[at : at + len(mark)] == mark:
            return kind
    looks: tuple[Callable[[bytes], Kind | None], ...] = (_zip, _safetensors, _pickle, _text, _tensorflow)
    for look in looks:
        if (found := look(head)) is not None:
            return found
    return NAMES.get(Path(name).suffix.lower())


def instead_of_artifact(path: str | Path) -> str | None:
    """What a file is that is no artifact, and what to do, in words; None if that is not known."""
    try:
        with open(path, "rb") as f:
            head = f.read(HEAD)
    except OSError:
        return None
    if not head:
        return "it is empty"
    kind = kind_of(head, str(path))
    if kind is None and _model(head):
        return f"it is {MODEL.name}; {MODEL.advice}"
    return None if kind in (None, ARTIFACT) else f"it is {kind.name}; give a file of 'waferc compile'"


def _model(head: bytes) -> bool:
    """Whether a file may be an ONNX model: its version comes first, and another field after it."""
    return (
        len(head) > 3
        and head[0] == 0x08
        and 1 <= head[1] <= 99
        and head[2] in b"\x12\x1a\x22\x28\x32\x3a\x42"
    )


def _zip(head: bytes) -> Kind | None:
    """By the names of the first files in the archive."""
    if not head.startswith(b"PK\x03\x04"):
        return None
    names = [_name_at(head, m.start()) for m in re.finditer(b"PK\x03\x04", head)]
    if names[0] == "manifest.json" and b'"sha256"' in head:
        return ARTIFACT
    if any(n.endswith(("/data.pkl", "/constants.pkl", "/.format_version", "/archive_format")) for n in names):
        return Kind("a PyTorch file (.pt)", TORCH)
    if any(n in ("config.json", "metadata.json", "model.weights.h5") for n in names):
        return Kind("a Keras model (.keras)", TENSORFLOW)
    if names[0].endswith(".npy"):
        return Kind("NumPy arrays (.npz)", "give them to a run with --inputs")
    inside = next((n for n in names if n.lower().endswith(".onnx")), names[0])
    held = f" with {inside[-60:]!r} in it" if inside.isprintable() and inside else ""
    return Kind(f"a zip archive{held}", UNPACK)


def _name_at(head: bytes, at: int) -> str:
    """The name in the local header of a zip archive that begins there."""
    length = int.from_bytes(head[at + 26 : at + 28], "little")
    return head[at + 30 : at + 30 + length].decode("utf-8", "replace")


def _safetensors(head: bytes) -> Kind | None:
    size = int.from_bytes(head[:8], "little")
    if head[8:9] == b"{" and 2 <= size < 1 << 28 and re.match(rb'\{\s*("|\})', head[8:]):
        return Kind("a safetensors file (weights without a graph)", "export the model itself to ONNX")
    return None


def _pickle(head: bytes) -> Kind | None:
    """By its protocol, in the first two bytes; one of the first protocols by reading all of it."""
    if head.startswith(b"\x80") and head[1:2] in (b"\2", b"\3", b"\4", b"\5"):
        return PICKLE
    if len(head) == HEAD or not head.endswith(b".") or head[:1] not in b"(cIFSVLNl]}0123456789":
        return None
    try:
        steps = [step.name for step, _, _ in pickletools.genops(head)]
    except Exception:  # whatever it raises for what is no pickle
        return None
    return PICKLE if len(steps) > 2 else None


def _text(head: bytes) -> Kind | None:
    """Text of any kind, in UTF-8 or, with its mark, UTF-16."""
    coded = "utf-16" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = head[: HEAD - 4].decode(coded)
    except UnicodeDecodeError as e:
        if e.end < len(head) - 8:
            return None
        text = head[: e.start].decode(coded)
    if any(not (c.isprintable() or c.isspace()) for c in text):
        return None
    plain = text.lstrip()
    for begins, kind in TEXTS:
        if re.match(begins, plain, re.IGNORECASE | re.DOTALL):
            return kind
    if plain[:1] in ("{", "["):
        return _json(plain)
    return TEXT


def _json(text: str) -> Kind:
    if '"opsetImport"' in text or '"irVersion"' in text:
        return Kind("the JSON of an ONNX model", "save it with onnx.save, as protobuf")
    if '"modelTopology"' in text:
        return Kind("a TensorFlow.js model", TENSORFLOW)
    try:
        json.loads(text)
    except RecursionError:
        return TEXT
    except ValueError:
        return TEXT if len(text) < HEAD - 8 else Kind("a JSON file", "give the ONNX file")
    return Kind("a JSON file", "give the ONNX file")


def _tensorflow(head: bytes) -> Kind | None:
    """A graph of TensorFlow's, which like ONNX's is a protobuf message: by names that it has early."""
    graph = head[:1] == b"\n" and b"dtype" in head and (b"Placeholder" in head or b"Const" in head)
    if graph or (head[:2] == b"\x08\x01" and b"\n\x05serve" in head):
        return Kind("a TensorFlow graph", TENSORFLOW)
    return None
