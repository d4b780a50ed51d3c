"""The real LiteLLM proxy, with the example's configuration, before a model that is a stub.

Skipped where no ``litellm`` is on the PATH; it needs an environment of its own:
``uv tool install 'litellm[proxy]'``, or ``pipx install``.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.support.serving import Served, read_keys, serving

pytestmark = pytest.mark.slow

CONFIG = Path(__file__).parents[2] / "examples" / "litellm" / "config.yaml"
KEY = "0123456789abcdef-key"
MASTER = f"sk-{'0123456789abcdef' * 4}"
TOOL = {"type": "function", "function": {"name": "search", "parameters": {"type": "object"}}}


class Model(BaseHTTPRequestHandler):
    """An OpenAI-compatible chat model: says what the last message asks it to say."""

    protocol_version = "HTTP/1.1"
    asked: ClassVar[list[Any]] = []

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.asked.append(body)
        words = str(body["messages"][-1]["content"]).removeprefix("SAY ")
        words = words.replace("ATT", "att")  # an attack that no request holds
        if body.get("tools"):
            call = {"name": "search", "arguments": json.dumps({"q": words})}
            message: dict[str, Any] = {"role": "assistant", "content": None, "tool_calls": [
                {"id": "call_1", "type": "function", "function": call}]}  # fmt: skip
        else:
            message = {"role": "assistant", "content": words}
        about = {"id": "chat-1", "created": 1, "model": body["model"]}
        if not body.get("stream"):
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
            told = {**about, "object": "chat.completion", "choices": [choice], "usage": usage}
            self._send("application/json", json.dumps(told).encode())
            return
        deltas: list[Any] = [{"role": "assistant", "content": ""}]
        deltas += [{"content": f"{word} "} for word in words.split()]
        lines = b""
        for i, delta in enumerate(deltas):
            end = "stop" if i == len(deltas) - 1 else None
            choices = [{"index": 0, "delta": delta, "finish_reason": end}]
            chunk = {**about, "object": "chat.completion.chunk", "choices": choices}
            lines += b"data: %b\n\n" % json.dumps(chunk).encode()
        self._send("text/event-stream", lines + b"data: [DONE]\n\n")

    def _send(self, kind: str, data: bytes) -> None:
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture(scope="module")
def model() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Model)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    (folder / "keys").write_text(KEY)
    with serving(folder, keys=read_keys(folder / "keys")) as server:
        yield server


@pytest.fixture(scope="module")
def chat(
    served: Served, model: ThreadingHTTPServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    """OpenAI's client, asking the proxy."""
    openai = pytest.importorskip("openai")
    litellm = shutil.which("litellm")
    if litellm is None:
        pytest.skip("no litellm here (uv tool install 'litellm[proxy]')")
    folder = tmp_path_factory.mktemp("proxy")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        "PATH": os.environ["PATH"], "HOME": str(folder), "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "MODEL_API_BASE": f"http://127.0.0.1:{model.server_port}", "MODEL_API_KEY": "any",
        "GUARDKIT_URL": served.url, "GUARDKIT_API_KEY": KEY, "LITELLM_MASTER_KEY": MASTER,
    }  # fmt: skip
    command = [litellm, "--config", CONFIG, "--host", "127.0.0.1", "--port", str(port)]
    with (folder / "log").open("wb") as log:
        proxy = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 240
        while not _alive(f"{url}/health/liveliness"):
            assert proxy.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.2)
        with openai.OpenAI(base_url=url, api_key=MASTER, max_retries=0) as client:
            yield client.chat.completions
    finally:
        with suppress(ProcessLookupError):
            os.killpg(proxy.pid, signal.SIGKILL)
        proxy.wait()


def _alive(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def ask(chat: Any, *texts: str, **more: Any) -> Any:
    roles = ["system", "user"][-len(texts) :]
    messages = [{"role": r, "content": t} for r, t in zip(roles, texts, strict=True)]
    return chat.create(model="chat", messages=messages, **more)


def test_what_is_harmless_passes_both_ways(chat: Any) -> None:
    assert ask(chat, "SAY a cake").choices[0].message.content == "a cake"


def test_an_attack_never_reaches_the_model(chat: Any) -> None:
    openai = pytest.importorskip("openai")
    before = len(Model.asked)
    with pytest.raises(openai.APIStatusError, match="policy 'test': injection"):
        ask(chat, "SAY an attack")
    assert len(Model.asked) == before


def test_the_operators_own_words_are_not_judged(chat: Any) -> None:
    answer = ask(chat, "How to tell an attack from a cake.", "SAY a cake")
    assert answer.choices[0].message.content == "a cake"


def test_an_answer_that_is_blocked_never_reaches_the_user(chat: Any) -> None:
    openai = pytest.importorskip("openai")
    with pytest.raises(openai.APIStatusError, match="injection"):
        ask(chat, "SAY an ATTack")


def test_a_call_of_a_tool_is_judged(chat: Any) -> None:
    openai = pytest.importorskip("openai")
    (call,) = ask(chat, "SAY a cake", tools=[TOOL]).choices[0].message.tool_calls
    assert "a cake" in call.function.arguments
    with pytest.raises(openai.APIStatusError, match="injection"):
        ask(chat, "SAY an ATTack", tools=[TOOL])


def test_a_stream_passes_whole_or_is_broken_off(chat: Any) -> None:
    openai = pytest.importorskip("openai")

    def streamed(text: str) -> str:
        stream = ask(chat, text, stream=True)
        return "".join(c.choices[0].delta.content or "" for c in stream if c.choices)

    calm = "SAY " + "a cake " * 20
    assert streamed(calm).split() == ["a", "cake"] * 20
    with pytest.raises(openai.APIError, match="injection"):
        streamed("SAY " + "a cake " * 10 + "an ATTack " + "a cake " * 10)


def test_what_could_not_be_judged_does_not_pass(chat: Any, served: Served) -> None:
    openai = pytest.importorskip("openai")
    before = len(Model.asked)
    with pytest.raises(openai.APIStatusError):
        ask(chat, "SAY BROKEN")
    served.service.batcher.close()
    with pytest.raises(openai.APIStatusError):
        ask(chat, "SAY a cake")
    assert len(Model.asked) == before
