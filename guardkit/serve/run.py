"""The server as a process: its socket, its signals, and its end."""

from __future__ import annotations

import asyncio
import math
import resource
import signal
import socket
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
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


@dataclass(frozen=True, slots=True)
class Started:
    """What is being served, and where: ``ports`` are those of single workers, beside the URL's."""

    url: str
    policy: str
    hash: str
    ports: tuple[int, ...] = ()


def serve(
    settings: Settings, ready: Callable[[Started], None], *, own_port: int | None = None
) -> None:
    """Serve until SIGTERM or SIGINT, answering what has begun; SIGHUP reads the policy again.

    ``ready`` is told once requests are welcome. With ``own_port`` the address of ``settings`` is
    shared with other processes, and the server is at that port, too. Raises UsageError where an
    address cannot be had, and what ``load_live`` raises.
    """
    log_to_stderr()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # it would end what is not ready for it yet
    _allow_many_connections()
    with ExitStack() as stack:
        sockets = [stack.enter_context(bound(settings, shared=own_port is not None))]
        if own_port is not None:
            sockets.append(stack.enter_context(bound(replace(settings, port=own_port))))
        service = Service(settings)
        policy = service.live.router.policy
        host, *ports = sockets[0].getsockname()[0], *(s.getsockname()[1] for s in sockets)
        url = f"http://[{host}]:{ports[0]}" if ":" in host else f"http://{host}:{ports[0]}"
        started = Started(url, policy.name, policy.hash, tuple(ports[1:]))
        server = _Server(server_config(service), service, lambda: ready(started))
        server.run(sockets=sockets)


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


def bound(settings: Settings, *, shared: bool = False) -> socket.socket:
    """Return a socket that is bound and does not listen yet: until the policy is ready, whoever
    connects is refused. ``shared``: others may be bound to the same address."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
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
