"""No text, key or anything else that a client chose reaches the log, the metrics or the hashes."""

from __future__ import annotations

import logging
import socket
from pathlib import Path

import pytest

from guardkit.serve.log import said_of
from tests.support.serving import POLICY, read_keys, serving

PLANTED = "planted-5a7c"
KEY = "planted-5a7c-key-0123456789"


def test_what_is_planted_anywhere_is_found_nowhere(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    (tmp_path / "keys").write_text(KEY)
    log = tmp_path / "audit.jsonl"
    text = f"{PLANTED} an attack"
    bodies = [
        {"text": text}, {"text": f"BROKEN {text}"}, {"text": f"NAN {text}"},
        {"text": f"CUT {text}"},
        {"text": text, "id": PLANTED}, {"inputs": [text, {"text": text, "id": [PLANTED]}]},
        {"messages": [{"role": PLANTED, "content": text}]}, {PLANTED: PLANTED},
        {"messages": [{"role": "user", "content": [{"type": PLANTED, "x": PLANTED}]}]},
        {"input": text}, {"input": [text, f"BROKEN {text}"]}, {"input": {PLANTED: text}},
        {"input_type": PLANTED, "texts": [text]}, {"input_type": "request", "texts": [text]},
        f'{{"text": "{PLANTED}'.encode(), f'{{"{PLANTED}": 1, "{PLANTED}": 2}}'.encode(),
        f'"{PLANTED}"'.encode(), b"\xff" + PLANTED.encode(),
    ]  # fmt: skip
    paths = ("/v1/classify", "/v1/moderations", "/v1/explain", f"/v1/{PLANTED}?q={PLANTED}",
             "/beta/litellm_basic_guardrail_api", f"/v1/classify?{PLANTED}")  # fmt: skip
    with serving(tmp_path, audit_log=log, keys=read_keys(tmp_path / "keys")) as served:
        for path in paths:
            for body in bodies:
                served.post(path, body, authorization=f"Bearer {KEY}", user_agent=PLANTED)
            served.post(path, {"text": text}, authorization=f"Bearer {PLANTED}")
            served.ask(f"{PLANTED.replace('-', '')}".upper(), path, None, {})
        for sent in (f"GET /{PLANTED} {PLANTED}\r\n\r\n", f"{PLANTED}: x\r\n\r\n"):
            with socket.create_connection(("127.0.0.1", served.port)) as connection:
                connection.sendall(sent.encode())
                connection.recv(65536)
        metrics = served.get("/metrics").body.decode()
        assert served.metric("guardkit_errors_total") > 0
    said = capfd.readouterr()
    everything = "\n".join(
        [metrics, log.read_text(), said.out, said.err, caplog.text,
         *(str(record.__dict__) for record in caplog.records)]
    )  # fmt: skip
    assert "/v1/classify" in everything
    assert PLANTED not in everything
    assert PLANTED.replace("-", "").upper() not in everything


def test_a_failure_of_ours_is_told_without_a_word_of_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise ValueError(PLANTED)

    monkeypatch.setattr("guardkit.serve.decisions.decision_record", fails)
    with serving(tmp_path, POLICY) as served:
        answer = served.post("/v1/classify", {"text": "a cake"})
        assert served.get("/healthz").status == 200
    assert answer.status == 500
    assert PLANTED not in answer.body.decode()
    assert answer.headers["x-request-id"] in caplog.text
    assert "ValueError at " in caplog.text
    assert PLANTED not in caplog.text


def test_an_error_is_named_by_its_type_its_place_and_its_causes() -> None:
    try:
        try:
            raise ValueError(PLANTED)
        except ValueError as error:
            raise RuntimeError(PLANTED) from error
    except RuntimeError as error:
        said = said_of(error)
    assert said.startswith("RuntimeError at ")
    assert ", from ValueError at " in said
    assert PLANTED not in said
