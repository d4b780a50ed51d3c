"""A server in this process, on a port of its own, whose one model answers as the text says."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from guardkit.plugins import Plugins
from tests.support import one_member
from tests.support.command_folder import Family
from tests.support.fake_models import plugins_of, write_model

pytest.importorskip("fastapi", reason="guardkit serve needs the extra `serve`")
uvicorn = pytest.importorskip("uvicorn")

# what these need is there, or the tests that import them from here are skipped
from guardkit.serve.api_errors import ApiError as ApiError  # noqa: E402
from guardkit.serve.bodies import parse_json as parse_json  # noqa: E402
from guardkit.serve.bodies import rows_of as rows_of  # noqa: E402
from guardkit.serve.decisions import fields_of as fields_of  # noqa: E402
from guardkit.serve.live import load_live as load_live  # noqa: E402
from guardkit.serve.run import server_config  # noqa: E402
from guardkit.serve.schemas import ClassifyRequest as ClassifyRequest  # noqa: E402
from guardkit.serve.service import Service  # noqa: E402
from guardkit.serve.settings import Settings as Settings  # noqa: E402
from guardkit.serve.settings import read_keys as read_keys  # noqa: E402

POLICY = (
    one_member.POLICY
    + """\
    on_error: closed
tests:
  - {text: "an attack", expect: {injection: block}}
"""
)


@dataclass
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Served:
    """A running server: its port, and what stands behind it."""

    port: int
    service: Service
    family: Family

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, None, headers)

    def post(self, path: str, body: Any, **headers: str) -> Answer:
        """Post JSON, or bytes as they are; ``authorization="..."`` and the like are headers."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        own = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.ask("POST", path, data, {"content-type": "application/json", **own})

    def ask(self, method: str, path: str, data: Any, headers: Mapping[str, str]) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, data, dict(headers))
            got = connection.getresponse()
            return Answer(got.status, {k.lower(): v for k, v in got.getheaders()}, got.read())
        finally:
            connection.close()

    def metric(self, line: str) -> float:
        """Return the value of one line of /metrics, 0 where it is not there."""
        for found in self.get("/metrics").body.decode().splitlines():
            if found.startswith(f"{line} "):
                return float(found.rpartition(" ")[2])
        return 0.0


Logits = Callable[[str, str], list[float]]


def logits_of(model: str, text: str) -> list[float]:
    """Speak for injection where a text has ``attack``, fail where it has BROKEN or NAN."""
    if "BROKEN" in text:
        raise ValueError(f"cannot score {text!r}")  # it quotes it, as others' errors do
    return [float("nan")] * 2 if "NAN" in text else one_member.logits_of(model, text)


def write_policy(folder: Path, policy: str = POLICY) -> Path:
    """Write a policy with its model, once."""
    if not (folder / "model").exists():
        write_model(folder / "model")
    (folder / "policy.yaml").write_text(policy, "utf-8")
    return folder / "policy.yaml"


def plugins_with(logits: Logits = logits_of, **more: Any) -> tuple[Family, Plugins]:
    family = Family(logits)
    return family, plugins_of(family, **more)


@contextmanager
def serving(
    folder: Path, policy: str = POLICY, *, logits: Logits = logits_of, modules: Any = None,
    **settings: Any,
) -> Iterator[Served]:  # fmt: skip
    """Serve ``policy`` from ``folder``; ``settings`` are those of ``guardkit.serve``."""
    family, plugins = plugins_with(logits, modules=modules)
    path = write_policy(folder, policy)
    service = Service(Settings(policy=path, port=0, **settings), plugins)
    config = server_config(service)
    config.port = 0
    server = uvicorn.Server(config)
    started = threading.Event()
    ports: list[int] = []

    async def run() -> None:
        task = asyncio.ensure_future(server.serve())
        while not server.started and not task.done():
            await asyncio.sleep(0.005)
        if server.started:
            ports.append(server.servers[0].sockets[0].getsockname()[1])
        started.set()
        await task

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    try:
        assert started.wait(60)
        yield Served(ports[0], service, family)
    finally:
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive()
