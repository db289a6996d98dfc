"""A server that listens, until it is told to end."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Generator
from contextlib import contextmanager

import uvicorn

from .app import Server
from .served import Served

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _Quiet(uvicorn.Server):
    """Its signals are heard on the loop: the first one ends it in order, the second at once."""

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        loop = asyncio.get_running_loop()
        heard: list[signal.Signals] = []
        for number in ENDING:
            if signal.getsignal(number) != signal.SIG_IGN:
                loop.add_signal_handler(number, self._end)
                heard.append(number)
        try:
            yield
        finally:
            for number in heard:
                loop.remove_signal_handler(number)

    def _end(self) -> None:
        self.force_exit = self.should_exit
        self.should_exit = True


def listening(host: str, port: int) -> socket.socket:
    """A socket at an address; port 0: any that is free. Raises OSError."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    made = socket.socket(family, kind, protocol)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen(512)
    except OSError:
        made.close()
        raise
    return made


def serve(server: Server, at: socket.socket, grace: int, ready: Callable[[], None]) -> None:
    """Serves at a socket until a signal ends it. grace: seconds that answers under way then have.

    ready: is called when clients may come.
    """
    config = uvicorn.Config(
        server.app(),
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=grace,
        h11_max_incomplete_event_size=1 << 16,
    )
    ready()
    try:
        _Quiet(config).run([at])
    finally:
        at.close()
        for served in server.models.values():
            if isinstance(served, Served):
                served.scheduler.close()
