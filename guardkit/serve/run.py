"""The server as a process: its socket, its signals, and its end."""

from __future__ import annotations

import asyncio
import math
import resource
import signal
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn

from guardkit.errors import GuardkitError, UsageError
from guardkit.serve.app import create_app
from guardkit.serve.log import log_to_stderr
from guardkit.serve.protocol import BoundedHttp
from guardkit.serve.service import Service
from guardkit.serve.settings import Settings

#: An idle connection is kept so long for the next request.
KEEP_ALIVE_S = 5


def serve(settings: Settings, ready: Callable[[str, Service], None]) -> None:
    """Serve until SIGTERM or SIGINT, answering what has begun; SIGHUP reads the policy again.

    ``ready`` is told the URL once requests are welcome. Raises UsageError where the address
    cannot be had, and what ``load_live`` raises.
    """
    log_to_stderr()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # it would end what is not ready for it yet
    _allow_many_connections()
    with _socket(settings) as listening:
        service = Service(settings)
        host, port = listening.getsockname()[:2]
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        server = _Server(server_config(service), service, lambda: ready(url, service))
        server.run(sockets=[listening])


def server_config(service: Service) -> uvicorn.Config:
    """Return how uvicorn serves ``service``. It logs no request: a path may hold text."""
    return uvicorn.Config(
        create_app(service), http=BoundedHttp, ws="none", loop="asyncio", lifespan="on",
        log_config=None, access_log=False, server_header=False, proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=math.ceil(service.settings.drain_s),
    )  # fmt: skip


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, service: Service, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._service, self._ready = service, ready
        self._reloads: set[asyncio.Task[None]] = set()  # or they would be collected under way

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._reload)
        self._ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End once what has begun is answered, at once at the second signal; uvicorn's own would
        die of the signal in the end."""
        self.force_exit = self.should_exit
        self.should_exit = True

    def _reload(self) -> None:
        task = asyncio.ensure_future(_reloaded(self._service))
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)


async def _reloaded(service: Service) -> None:
    try:
        await service.reload()
    except GuardkitError:  # in the log, with what is wrong
        return


def _socket(settings: Settings) -> socket.socket:
    """Return a socket that is bound and does not listen yet: until the policy is ready, whoever
    connects is refused."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((settings.host, settings.port))
    except (OSError, OverflowError) as error:
        listening.close()
        why = getattr(error, "strerror", None) or error
        raise UsageError(
            f"--host {settings.host} --port {settings.port}: cannot be served at: {why}"
        ) from error
    return listening


def _allow_many_connections() -> None:
    """Let the process have as many connections as it may: idle ones must not keep others out."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
