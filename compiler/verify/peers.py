"""Other runtimes that `waferc bench` measures beside ours, each as `golden.Golden` says.

onnxruntime gives the ratio and must be there. The others are used where they can be imported.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from ...ir.op import Array
from ...runtime.program import Port
from ..errors import UnsupportedModel, UsageError, shown
from ..frontend.load import load_model
from .golden import Golden, OnnxRuntime

FIRST = OnnxRuntime.name
MODULES = {"openvino": "openvino", "openvino-f32": "openvino", "iree": "iree.compiler"}


def available() -> list[str]:
    """The peers that can be used here, the one that gives the ratio first."""
    return [FIRST, *(name for name, module in MODULES.items() if _installed(module))]


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of the package around it
        return False


def load_peer(name: str, model: str, threads: int, ports: Sequence[Port]) -> Golden:
    """The peer called `name` with `model` loaded for `threads` threads and inputs as `ports` say.

    Raises UnsupportedModel where it cannot run the model, UsageError where it is not installed.
    """
    if name == FIRST:
        return OnnxRuntime(model, threads)
    if name == LlamaCpp.name and _installed("llama_cpp"):
        return LlamaCpp(model, threads)
    if name not in available():
        raise UsageError(f"{name} is not installed")
    if name == "iree":
        return IREE(model, threads, ports)
    return OpenVINO(model, threads, ports, "f32" if name.endswith("f32") else "")


class LlamaCpp:
    """llama.cpp on a GGUF file: of one text, with the caches inside. `available` does not name it.

    Its input is `input_ids` [1, tokens], whole numbers; its output `logits` [1, vocabulary] follow the last.
    """

    name = "llama.cpp"
    inputs: Sequence[str] = ("input_ids",)
    outputs: Sequence[str] = ("logits",)

    def __init__(self, model: str, threads: int) -> None:
        module: Any = importlib.import_module("llama_cpp")
        try:
            self._llama: Any = module.Llama(
                model, n_ctx=1024, n_threads=threads, n_threads_batch=threads, verbose=False
            )
        except (ValueError, RuntimeError) as e:
            raise _refused(self.name, e) from None

    def reset(self) -> None:
        self._llama.reset()

    def run(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        self._llama.eval(feed["input_ids"].ravel().astype(int).tolist())
        return {"logits": np.ctypeslib.as_array(self._llama._ctx.get_logits(), (1, self._llama.n_vocab()))}


class OpenVINO:
    """OpenVINO on the host's CPU, told to be quick. precision: "f32", or "" for its own choice."""

    def __init__(self, model: str, threads: int, ports: Sequence[Port], precision: str) -> None:
        self.name = "openvino"
        hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
        if precision:
            hints["INFERENCE_PRECISION_HINT"] = precision
        try:
            core: Any = importlib.import_module("openvino").Core()
            read = core.read_model(model)
            read.reshape({p.name: list(p.shape) for p in ports})
            compiled = core.compile_model(read, "CPU", hints)
        except RuntimeError as e:
            raise _refused(self.name, e) from None
        self._request: Any = compiled.create_infer_request()
        self.inputs: Sequence[str] = [p.any_name for p in compiled.inputs]
        self.outputs: Sequence[str] = [p.any_name for p in compiled.outputs]

    def run(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        found = self._request.infer(dict(feed), share_inputs=True)
        return {name: np.asarray(found[i]) for i, name in enumerate(self.outputs)}


class IREE:
    """IREE's compiled code on the host's CPU; weights stay outside of the code, as its importer does it."""

    name = "iree"

    def __init__(self, model: str, threads: int, ports: Sequence[Port]) -> None:
        compiler: Any = importlib.import_module("iree.compiler")
        runtime: Any = importlib.import_module("iree.runtime")
        with tempfile.TemporaryDirectory() as folder:
            source, code = Path(folder) / "model.mlir", Path(folder) / "model.vmfb"
            graph = self._imported(model, ports, source)
            try:
                compiler.compile_file(
                    str(source),
                    output_file=str(code),
                    target_backends=["llvm-cpu"],
                    input_type="onnx",
                    extra_args=["--iree-llvmcpu-target-cpu=host"],
                )
            except compiler.CompilerToolError as e:
                raise _refused(self.name, e) from None
            runtime.flags.parse_flags(f"--task_topology_max_group_count={threads}")
            config = runtime.Config("local-task")
            instance = config.vm_instance
            weights = runtime.ParameterIndex()
            if (stored := Path(folder) / "model_params.irpa").exists():
                weights.load(str(stored))
            parts = (
                runtime.create_io_parameters_module(instance, weights.create_provider(scope="model")),
                runtime.create_hal_module(instance, config.device),
                runtime.VmModule.copy_buffer(instance, code.read_bytes()),
            )
            loaded = runtime.load_vm_modules(*parts, config=config)[-1]
        names = [n for n in loaded.vm_module.function_names if not n.startswith("__") and "$" not in n]
        self._call: Any = loaded[names[0]]
        stored_names = {t.name for t in graph.initializer}
        self.inputs: Sequence[str] = [v.name for v in graph.input if v.name not in stored_names]
        self.outputs: Sequence[str] = [v.name for v in graph.output]

    def _imported(self, model: str, ports: Sequence[Port], target: Path) -> onnx.GraphProto:
        """Writes the model with static shapes as IREE's importer reads it."""
        proto = load_model(model)
        shapes = {p.name: p.shape for p in ports}
        for value in proto.graph.input:
            for dim, n in zip(value.type.tensor_type.shape.dim, shapes.get(value.name, ()), strict=False):
                dim.dim_value = n
        static = target.with_suffix(".onnx")
        static.write_bytes(proto.SerializeToString())
        command = [sys.executable, "-m", "iree.compiler.tools.import_onnx", static, "-o", target]
        command += ["--externalize-params", "--opset-version", "17"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise _refused(self.name, RuntimeError((done.stderr.splitlines() or [""])[-1]))
        return proto.graph

    def run(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        found = self._call(*(feed[name] for name in self.inputs))
        values: Any = found if len(self.outputs) > 1 else [found]
        return {n: np.asarray(v.to_host()) for n, v in zip(self.outputs, values, strict=True)}


def _refused(name: str, e: Exception) -> UnsupportedModel:
    lines = [line for line in str(e).splitlines() if line.strip()] or [type(e).__name__]
    return UnsupportedModel(f"{name} cannot run the model: {shown(lines[0], 200)}")
