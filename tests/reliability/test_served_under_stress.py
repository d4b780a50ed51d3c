"""The server as a process: killed under load, starved by idle and slow clients, run for a while."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.support.server_process import Process

from .runs import PLANTED, POLICY

pytestmark = [pytest.mark.reliability, pytest.mark.timeout(600)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "policy.yaml").write_text(POLICY)
    return tmp_path


@pytest.fixture
def server(folder: Path) -> Iterator[Process]:
    server = Process(folder, "--policy", "policy.yaml")
    yield server
    assert server.end() == 0
    assert PLANTED not in server.log.read_text()


class Load:
    """Clients that ask one thing after the other, and count what they got."""

    def __init__(self, port: int, clients: int) -> None:
        self.port, self.outcomes = port, Counter[str]()
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._threads = [
            threading.Thread(target=self._ask, args=(client,)) for client in range(clients)
        ]
        for thread in self._threads:
            thread.start()

    def end(self) -> Counter[str]:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        return self.outcomes

    def wait_for(self, answered: int) -> None:
        while self.outcomes["right"] < answered:
            time.sleep(0.01)

    def _ask(self, client: int) -> None:
        number = client
        while not self._stop.is_set():
            number += 7
            outcome = self._outcome(number)
            with self._lock:
                self.outcomes[outcome] += 1

    def _outcome(self, number: int) -> str:
        body = json.dumps({"text": f"{PLANTED} {number}", "id": number})
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request("POST", "/v1/classify", body, {"content-type": "application/json"})
            answer = connection.getresponse()
            told = answer.read()
        except (OSError, http.client.HTTPException):
            time.sleep(0.02)
            return "refused"
        finally:
            connection.close()
        if answer.status != 200:
            return f"status {answer.status}"
        (decision,) = json.loads(told)["decisions"]
        expected = "flag" if number % 2 else "allow"
        right = (decision["id"], decision["action"], decision["error"]) == (number, expected, None)
        return "right" if right else f"wrong: {decision}"


def test_a_server_killed_and_started_again_under_load_never_answers_wrong(folder: Path) -> None:
    server = Process(folder, "--policy", "policy.yaml")
    port = server.served.port
    load = Load(port, 8)
    try:
        for kill in range(1, 6):
            load.wait_for(50 * kill)
            assert server.end(signal.SIGKILL) == -signal.SIGKILL
            server = Process(folder, "--policy", "policy.yaml", port=port)
        load.wait_for(300)
    finally:
        outcomes = load.end()
        code = server.end()
    assert code == 0
    assert outcomes.keys() == {"right", "refused"}


def test_a_server_that_is_ended_under_load_breaks_nothing_off(folder: Path) -> None:
    server = Process(folder, "--policy", "policy.yaml")
    load = Load(server.served.port, 8)
    load.wait_for(100)
    assert server.end() == 0
    outcomes = load.end()
    # connections that were being made are refused; what had begun was answered
    assert outcomes.keys() <= {"right", "refused", "status 503"}


def test_a_policy_read_again_and_again_under_load_drops_nothing(
    folder: Path, server: Process
) -> None:
    load = Load(server.served.port, 4)
    for i in range(10):
        load.wait_for(20 * (i + 1))
        (folder / "policy.yaml").write_text(f"# {i}\n{POLICY}" if i % 2 else "nonsense")
        server.process.send_signal(signal.SIGHUP)
    load.wait_for(300)
    assert load.end().keys() == {"right"}
    assert server.served.metric('guardkit_reloads_total{outcome="done"}') >= 1
    assert server.served.metric('guardkit_reloads_total{outcome="refused"}') >= 1


def test_slow_clients_keep_nobody_waiting_and_are_given_up(server: Process) -> None:
    with ExitStack() as stack:
        slow = [
            stack.enter_context(socket.create_connection(("127.0.0.1", server.served.port), 60))
            for _ in range(200)
        ]
        stop = threading.Event()
        for connection in slow:
            connection.sendall(b"POST /v1/classify HTTP/1.1\r\n")

        def drip() -> None:
            while not stop.wait(0.2):
                for connection in slow:
                    with suppress(OSError):  # given up, as it should be
                        connection.sendall(b"x: y\r\n")

        thread = threading.Thread(target=drip)
        thread.start()
        load = Load(server.served.port, 4)
        load.wait_for(200)
        assert load.end().keys() == {"right"}
        for connection in slow:
            answer = b""
            try:
                while got := connection.recv(1024):
                    answer += got
            except ConnectionResetError:
                pass
            assert answer == b"" or answer.startswith(b"HTTP/1.1 408")
        stop.set()
        thread.join()


def test_idle_connections_take_little_and_keep_nobody_out(server: Process) -> None:
    import resource

    wanted = 10_000
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most < wanted + 500:
        pytest.skip(f"a process may have {most} files here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    try:
        resident = server.resident_bytes()
        with ExitStack() as stack:
            for i in range(wanted):
                # of loopback's own: one address has too few ports for some systems' settings
                idle = socket.create_connection(
                    ("127.0.0.1", server.served.port),
                    60,
                    source_address=(f"127.0.0.{2 + i % 8}", 0),
                )
                stack.enter_context(idle)
            assert server.served.post("/v1/classify", {"text": "number 3"}).status == 200
            assert server.resident_bytes() - resident < 256 * 2**20
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert server.served.get("/healthz").status == 200


def test_bodies_of_gigabytes_are_neither_read_nor_kept(server: Process) -> None:
    resident = server.resident_bytes()
    headers = b"POST /v1/classify HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    for framing in (b"content-length: 10737418240\r\n\r\n", b"transfer-encoding: chunked\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", server.served.port), 60) as connection:
            connection.sendall(headers + framing)
            chunk = b"100000\r\n" + b"x" * 2**20 + b"\r\n"
            sent = 0
            try:
                while sent < 10 * 2**30:
                    sent += connection.send(chunk)
            except OSError:  # closed
                pass
            assert sent < 100 * 2**20
    assert server.resident_bytes() - resident < 64 * 2**20
    assert server.served.post("/v1/classify", {"text": "number 3"}).status == 200


def test_a_while_of_load_leaves_nothing_behind(server: Process) -> None:
    """Finds what grows with each request."""
    load = Load(server.served.port, 4)
    load.wait_for(1000)
    resident = server.resident_bytes()
    load.wait_for(5000)
    assert load.end().keys() == {"right"}
    assert server.resident_bytes() - resident < 16 * 2**20
    assert server.served.metric("guardkit_queue_size") == 0


def test_the_default_policy_takes_less_than_650_mb(folder: Path) -> None:
    server = Process(folder, "--device", "cpu", "--timeout", "300")
    try:
        for i in range(8):
            inputs = [
                f"Please tell me how to cook rice, {i} {j}." * (1 + j % 4) for j in range(128)
            ]
            answer = server.served.post("/v1/classify", {"inputs": inputs})
            assert len(answer.json["decisions"]) == 128
        assert server.resident_bytes() < 650 * 10**6
    finally:
        assert server.end() == 0
