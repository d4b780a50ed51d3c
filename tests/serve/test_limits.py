"""What a client may take: bytes, time, places in the queue; and what one who leaves gives back."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from guardkit.policy.micro_batching import Limits
from tests.support.serving import Served, serving

MOST = 4096


class Model:
    """Answers when it may; ``busy`` says that it was asked."""

    def __init__(self) -> None:
        self.go, self.busy = threading.Event(), threading.Event()

    def __call__(self, _: str, text: str) -> list[float]:
        if "WAIT" in text:
            self.busy.set()
            assert self.go.wait(60)
        return [0.0, 2.0 if "attack" in text else -2.0]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path, max_body=MOST) as server:
        yield server


def raw(served: Served, *parts: bytes) -> bytes:
    """Send bytes as they are and return all that comes back until the server closes."""
    with socket.create_connection(("127.0.0.1", served.port), timeout=60) as connection:
        for part in parts:
            connection.sendall(part)
        answer = b""
        try:
            while got := connection.recv(65536):
                answer += got
        except ConnectionResetError:
            pass
    return answer


def head(*headers: str, path: str = "/v1/classify") -> bytes:
    lines = [f"POST {path} HTTP/1.1", "host: x", "content-type: application/json", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def body_of(size: int) -> bytes:
    return json.dumps({"text": "x" * (size - 12)}).encode()


def test_a_body_may_be_as_large_as_that_and_no_larger(served: Served) -> None:
    assert len(body_of(MOST)) == MOST
    assert served.post("/v1/classify", body_of(MOST)).status == 200
    refused = served.post("/v1/classify", body_of(MOST + 1))
    assert refused.status == 413
    assert refused.json["error"]["code"] == "too_large"


@pytest.mark.parametrize("size", [10 * 2**30, 10**30, 10**400])
def test_a_body_that_is_declared_too_large_is_refused_unread(served: Served, size: int) -> None:
    answer = raw(served, head(f"content-length: {size}"))
    assert answer.startswith((b"HTTP/1.1 413", b"HTTP/1.1 400"))


def test_a_body_in_chunks_is_refused_where_it_becomes_too_large(served: Served) -> None:
    chunk = b"400\r\n" + b"x" * 1024 + b"\r\n"
    answer = raw(served, head("transfer-encoding: chunked"), *[chunk] * 5)
    assert answer.startswith(b"HTTP/1.1 413")


def test_a_body_in_chunks_is_read(served: Served) -> None:
    text = b'{"text": "an attack"}'
    chunks = [b"%x\r\n%b\r\n" % (len(p), p) for p in (text[:5], text[5:])]
    sent = [head("transfer-encoding: chunked", "connection: close"), *chunks, b"0\r\n\r\n"]
    assert b'"action":"block"' in raw(served, *sent)


@pytest.mark.parametrize(
    "headers",
    [
        ("content-length: 5", "transfer-encoding: chunked"),
        ("content-length: 5", "content-length: 6"),
        ("content-length: -1",),
        ("content-length: 5_0",),
        ("transfer-encoding: xchunked",),
        ("content-length : 5",),
        ("x: a\n b: c",),
    ],
)
def test_a_request_that_two_readers_would_read_differently_is_refused(
    served: Served, headers: tuple[str, ...]
) -> None:
    smuggled = head(*headers) + b"0\r\n\r\nPOST /v1/reload HTTP/1.1\r\nhost: x\r\n\r\n"
    answer = raw(served, smuggled)
    assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 413"))
    assert answer.count(b"HTTP/1.1") == 1


def test_headers_without_end_are_refused(served: Served) -> None:
    lines = [b"x-%d: %b\r\n" % (i, b"y" * 1000) for i in range(2000)]
    answer = raw_until_refused(served, [head()[:-2], *lines])
    assert answer.startswith(b"HTTP/1.1 431") or answer == b""


def raw_until_refused(served: Served, parts: list[bytes]) -> bytes:
    try:
        return raw(served, *parts)
    except (BrokenPipeError, ConnectionResetError):  # refused before all was sent
        return b""


def test_who_sends_slowly_is_given_up(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("guardkit.serve.protocol.HEADERS_S", 0.1)
    monkeypatch.setattr("guardkit.serve.gate.BODY_S", 0.1)
    assert raw(served, b"").startswith(b"HTTP/1.1 408"), "nothing at all"
    assert raw(served, b"\r\n").startswith(b"HTTP/1.1 408"), "an empty line"
    assert raw(served, b"POST /v1/cl").startswith(b"HTTP/1.1 408"), "half the headers"
    half = raw(served, head("content-length: 100"), b"half a body")
    assert half.startswith(b"HTTP/1.1 408")
    assert b"connection: close" in half


def test_a_second_request_of_a_connection_has_as_long_and_no_longer(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    get = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
    monkeypatch.setattr("guardkit.serve.protocol.HEADERS_S", 0.1)
    for rest in (b"\r\n", b"GET /hea"):
        with socket.create_connection(("127.0.0.1", served.port), timeout=60) as connection:
            connection.sendall(get + get)
            answer = b""
            while answer.count(b'{"status":"ok"}') < 2:
                answer += connection.recv(65536)
            connection.sendall(rest)
            while got := connection.recv(65536):
                answer += got
        assert answer.count(b"HTTP/1.1 200") == 2
        assert b"HTTP/1.1 408" in answer


def test_when_too_much_waits_others_are_told_to_come_again(tmp_path: Path) -> None:
    model = Model()
    limits = Limits(queue_requests=2)
    with serving(tmp_path, logits=model, limits=limits) as served, ThreadPoolExecutor(8) as pool:
        first = pool.submit(served.post, "/v1/classify", {"text": "WAIT"})
        assert model.busy.wait(60)
        others = [pool.submit(served.post, "/v1/classify", {"text": "a cake"}) for _ in range(2)]
        while served.service.batcher.waiting < 2:
            time.sleep(0.001)
        refused = served.post("/v1/moderations", {"input": "a cake"})
        assert refused.status == 429
        assert int(refused.headers["retry-after"]) >= 1
        assert served.get("/healthz").status == 200, "the event loop is free"
        model.go.set()
        assert [one.result().status for one in (first, *others)] == [200] * 3
        assert served.metric('guardkit_refused_total{reason="QueueFullError"}') == 1


def test_bodies_take_so_much_room_together_and_give_it_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("guardkit.serve.gate.BODIES_BYTES", 5000)
    model = Model()
    with serving(tmp_path, logits=model) as served, ThreadPoolExecutor(2) as pool:
        body = json.dumps({"text": "WAIT" + "x" * 3000}).encode()
        first = pool.submit(served.post, "/v1/classify", body)
        assert model.busy.wait(60)
        refused = served.post("/v1/classify", body_of(3000))
        assert (refused.status, refused.json["error"]["code"]) == (429, "busy")
        assert served.post("/v1/policy", b"").status == 405, "what is small has room"
        model.go.set()
        assert first.result().status == 200
        assert served.post("/v1/classify", body_of(3000)).status == 200


def test_what_is_late_gets_a_503_and_is_not_judged(tmp_path: Path) -> None:
    model = Model()
    with serving(tmp_path, logits=model, timeout_s=0.3) as served, ThreadPoolExecutor(2) as pool:
        first = pool.submit(served.post, "/v1/classify", {"text": "WAIT"})
        assert model.busy.wait(60)
        late = served.post("/v1/classify", {"text": "late"})
        assert late.status == 503
        assert late.json["error"]["code"] == "deadline"
        assert first.result().status == 503
        model.go.set()
    judged = [text for _, texts in served.family.calls for text in texts]
    assert "late" not in judged


def test_who_hangs_up_takes_the_work_along(tmp_path: Path) -> None:
    model = Model()
    with serving(tmp_path, logits=model) as served, ThreadPoolExecutor(2) as pool:
        first = pool.submit(served.post, "/v1/classify", {"text": "WAIT"})
        assert model.busy.wait(60)
        text = b'{"text": "nobody waits for this"}'
        with socket.create_connection(("127.0.0.1", served.port)) as connection:
            connection.sendall(head(f"content-length: {len(text)}") + text)
            while served.service.batcher.waiting < 1:
                time.sleep(0.001)
        while served.service.batcher.waiting:
            time.sleep(0.001)
        model.go.set()
        assert first.result().status == 200
    judged = [text for _, texts in served.family.calls for text in texts]
    assert "nobody waits for this" not in judged


def test_what_has_begun_is_answered_before_the_server_ends(tmp_path: Path) -> None:
    model = Model()
    with ThreadPoolExecutor(2) as pool:
        with serving(tmp_path, logits=model) as served:
            begun = pool.submit(served.post, "/v1/classify", {"text": "WAIT, an attack"})
            assert model.busy.wait(60)
            threading.Timer(0.2, model.go.set).start()
        answer = begun.result()
    assert answer.status == 200
    assert answer.json["decisions"][0]["action"] == "block"
    with pytest.raises(ConnectionRefusedError):
        served.get("/healthz")
