"""What computes points: this process, a pool of processes, or Ray, all behind `concurrent.futures`."""

from __future__ import annotations

from collections.abc import Callable, Generator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

from ..errors import UsageError, quoted

LOST: list[type[BaseException]] = [BrokenProcessPool]
"""What a future raises whose worker is gone; Ray's own joins them when it is loaded."""


class Here(Executor):
    """Does at once what it is given."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        out: Future[Any] = Future()
        try:
            out.set_result(fn(*args, **kwargs))
        except BaseException as e:
            if not isinstance(e, Exception):
                raise
            out.set_exception(e)
        return out


class Ray(Executor):
    """A cluster of Ray, a local one or one by its address."""

    def __init__(self, workers: int, address: str | None) -> None:
        try:
            import ray  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise UsageError("--engine ray needs Ray: pip install 'waferc[sweep]'") from None
        self._ray: Any = ray
        LOST[1:] = [self._ray.exceptions.WorkerCrashedError, self._ray.exceptions.NodeDiedError]
        local: dict[str, Any] = {} if address else {"num_cpus": workers, "include_dashboard": False}
        try:
            self._ray.init(address=address or "local", log_to_driver=False, logging_level="ERROR", **local)
        except (ConnectionError, RuntimeError, ValueError) as e:
            raise UsageError(f"no cluster of Ray at {quoted(address or 'local')}: {e}") from None
        self.workers = int(self._ray.cluster_resources().get("CPU", workers))

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        # Who lost what is told by `run`, which counts: Ray itself tries nothing twice.
        return self._ray.remote(fn).options(max_retries=0, num_cpus=1).remote(*args, **kwargs).future()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._ray.shutdown()


@dataclass(frozen=True)
class Engine:
    """kind: "here", "processes" or "ray". address: of a cluster of Ray, None for a local one."""

    kind: str
    workers: int
    address: str | None = None

    @contextmanager
    def executor(self) -> Generator[tuple[Executor, int]]:
        """(what computes, how many points at once)"""
        if self.kind == "ray":
            own = Ray(self.workers, self.address)
            made, count = own, own.workers
        elif self.kind == "processes":
            made = ProcessPoolExecutor(self.workers, mp_context=get_context("spawn"))
            count = self.workers
        else:
            made, count = Here(), 1
        try:
            yield made, count
        finally:
            made.shutdown(wait=False, cancel_futures=True)
