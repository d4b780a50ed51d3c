"""An OpenAI-compatible endpoint in this process, whose answers a test gives, wrong ones too."""

from __future__ import annotations

import json
import math
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Request = Mapping[str, Any]


class Reply:
    """What the endpoint sends: a status, headers and a body (``announced`` bytes long), then it
    waits for ``hold`` before each of its ``pieces``."""

    def __init__(
        self,
        body: Any,
        status: int = 200,
        *,
        headers: Mapping[str, str] | None = None,
        announced: int | None = None,
        hold: threading.Event | None = None,
        pieces: int = 1,
    ) -> None:
        self.body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.status, self.headers = status, dict(headers or {})
        self.announced, self.hold, self.pieces = announced, hold, pieces


class Endpoint:
    """``answer(request)`` gives each reply; ``requests`` are those received, ``keys`` the
    Authorization header of each."""

    def __init__(self, answer: Callable[[Request], Reply]) -> None:
        self.answer = answer
        self.requests: list[Request] = []
        self.keys: list[str | None] = []
        self.lock = threading.Lock()
        self.url = ""

    def texts(self) -> list[str]:
        """Return the text of each request, in the order they came."""
        return [text_of(request) for request in self.requests]


@contextmanager
def serving(answer: Callable[[Request], Reply]) -> Iterator[Endpoint]:
    """Serve ``answer`` on a port of this machine."""
    endpoint = Endpoint(answer)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["content-length"]))
            request = json.loads(content)
            assert self.path == "/v1/chat/completions"
            with endpoint.lock:
                endpoint.requests.append(request)
                endpoint.keys.append(self.headers.get("authorization"))
                reply = endpoint.answer(request)
            try:
                self.send(reply)
            except OSError:  # the client has given up
                self.close_connection = True

        def send(self, reply: Reply) -> None:
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            announced = len(reply.body) if reply.announced is None else reply.announced
            self.send_header("content-length", str(announced))
            self.end_headers()
            size = math.ceil(len(reply.body) / reply.pieces) or 1
            for start in range(0, len(reply.body), size):
                if reply.hold is not None and reply.hold.wait(0.2 if reply.pieces > 1 else 30):
                    break
                self.wfile.write(reply.body[start : start + size])
                self.wfile.flush()
            if announced != len(reply.body):
                self.close_connection = True

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    endpoint.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield endpoint
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def refused_url() -> str:
    """Return the URL of a port at which nobody listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{held.getsockname()[1]}/v1"


def text_of(request: Request) -> str:
    """Return the text that a request asks about, as its marks enclose it."""
    system, user = (message["content"] for message in request["messages"])
    mark = next(line for line in system.splitlines() if line.endswith(" ==="))
    mark = mark[mark.index("=== ") :]
    return str(user.split(f"{mark}\n", 1)[1].rsplit(f"\n{mark}", 1)[0])


def completion(
    said: str,
    chances: Mapping[str, float] | None = None,
    *,
    tokens: Sequence[str] = (),
    usage: tuple[int, int] = (50, 1),
) -> dict[str, Any]:
    """Return a chat completion in the wire format: ``chances`` are the probabilities of the token
    that answers, ``tokens`` what comes before it."""
    choice: dict[str, Any] = {
        "index": 0,
        "finish_reason": "stop",
        "message": {"role": "assistant", "content": said, "refusal": None},
        "logprobs": None,
    }
    if chances is not None:
        top = [
            {"token": token, "logprob": math.log(p), "bytes": list(token.encode())}
            for token, p in sorted(chances.items(), key=lambda item: -item[1])
        ]
        before = [{"token": t, "logprob": 0.0, "bytes": None, "top_logprobs": []} for t in tokens]
        choice["logprobs"] = {"content": [*before, top[0] | {"top_logprobs": top}]}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "stub",
        "choices": [choice],
        "usage": {
            "prompt_tokens": usage[0],
            "completion_tokens": usage[1],
            "total_tokens": sum(usage),
        },
    }


def by_rule(request: Request) -> Reply:
    """Answer yes, by 9 to 1, where the text speaks of an attack."""
    p = 0.9 if "attack" in text_of(request) else 0.1
    said = "yes" if p > 0.5 else "no"
    chances = {"yes": p, "no": 1 - p} if request.get("logprobs") else None
    if "response_format" in request:
        return Reply(
            completion(f'{{"answer": "{said}"}}', chances, tokens=['{"', "answer", '": "'])
        )
    return Reply(completion(said, chances))
