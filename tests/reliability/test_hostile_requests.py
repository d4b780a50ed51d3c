"""Bodies that mean harm, or nothing at all: an answer of the form that the schema gives, always."""

from __future__ import annotations

import json
import random
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.serving import Served, serving

from .hostile import hostile

pytestmark = pytest.mark.reliability


#: Parsers disagree which of two values counts.
TWICE = {"y_object_duplicated_key", "y_object_duplicated_key_and_value"}
NO_BODY = "n_structure_no_data"


def logits_of(_: str, text: str) -> list[float]:
    return [0.0, 2.0 if "attack" in text else -2.0]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("served"), logits=logits_of) as server:
        yield server


def test_each_of_jsontestsuite_is_read_or_refused(served: Served) -> None:
    files = sorted(hostile("jsontestsuite").glob("*.json"))
    assert len(files) == 318
    codes: dict[str, tuple[str | None, str | None]] = {}
    for file in files:
        body = file.read_bytes()
        field = b'{"text": "a cake", "meta": ' + body + b"}"
        answers = [served.post("/v1/classify", sent) for sent in (body, field)]
        assert {answer.status for answer in answers} <= {200, 400}, file.name
        codes[file.stem] = tuple(a.json.get("error", {}).get("code") for a in answers)
    for name, (whole, field_code) in codes.items():
        if name.startswith("y_"):  # an array is read, and is no request
            refused = "invalid_json" if name in TWICE else None
            assert field_code == refused, name
            assert (whole == "invalid_json") == (name in TWICE), name
        if name.startswith("n_"):
            assert whole == ("invalid_request" if name == NO_BODY else "invalid_json"), name
            assert field_code == "invalid_json", name
    (decision,) = served.post("/v1/classify", {"text": "an attack"}).json["decisions"]
    assert decision["action"] == "block"


def test_each_naughty_string_is_judged_wherever_it_stands(served: Served) -> None:
    strings = json.loads(hostile("blns.json").read_text("utf-8"))
    assert len(strings) == 515
    for start in range(0, len(strings), 100):
        some = strings[start : start + 100]
        inputs = [{"text": s, "id": s, "other": {s: s}} for s in some]
        decisions = served.post("/v1/classify", {"inputs": inputs}).json["decisions"]
        assert [d["id"] for d in decisions] == some
        assert {d["error"] for d in decisions} == {None}
        results = served.post("/v1/moderations", {"input": some}).json["results"]
        assert len(results) == len(some)
    for s in strings:
        answer = served.post("/v1/classify", {"messages": [{"role": s, "content": "a cake"}]})
        assert answer.status in (200, 400)
        assert served.post("/v1/classify", {s: s, "text": s}).status in (200, 400)


URLS = [
    "http://169.254.169.254/latest/meta-data/", "http://[fd00:ec2::254]/", "file:///etc/passwd",
    "http://localhost:22/", "http://127.1/", "http://0x7f000001/", "http://2130706433/",
    "gopher://127.0.0.1:6379/_INFO", "ftp://127.0.0.1/", "dict://127.0.0.1:11211/stats",
    "http://metadata.google.internal/", "//127.0.0.1/", "https://example.com/redirect?to=file:///",
    "data:text/plain,attack", "jar:http://127.0.0.1!/", "http://user@127.0.0.1@example.com/",
]  # fmt: skip


def test_no_address_in_a_request_is_ever_asked(served: Served) -> None:
    """An audit hook of the interpreter sees every socket and every file of the server's threads."""
    seen: list[tuple[str, Any]] = []
    own = threading.current_thread()
    watching = True
    events = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "urllib.Request")

    def watch(event: str, arguments: Any) -> None:
        opened = event == "open" and "passwd" in str(arguments[0])
        if watching and (event in events or opened) and threading.current_thread() is not own:
            seen.append((event, arguments))

    sys.addaudithook(watch)
    for url in URLS:
        image = {"type": "image_url", "image_url": {"url": url}}
        file = {"type": "file", "file": {"file_id": url}}
        for path, body in (
            ("/v1/moderations", {"input": [image]}),
            ("/v1/moderations", {"input": url}),
            ("/v1/classify", {"text": url}),
            ("/v1/classify", {"messages": [{"role": "user", "content": [image, file]}]}),
            ("/v1/classify", {"input": [{"type": "item_reference", "id": url}]}),
            ("/v1/explain", {"text": url}),
            ("/beta/litellm_basic_guardrail_api",
             {"input_type": "request", "texts": [url], "images": [url]}),
        ):  # fmt: skip
            assert served.post(path, body).status in (200, 400)
    watching = False
    assert seen == []


def test_bytes_that_are_no_requests_hurt_nobody(served: Served) -> None:
    """Requests cut, doubled and changed at random, from a fixed seed."""
    chance = random.Random(25)
    body = b'{"text": "an attack"}'
    whole = (
        b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Connection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    )
    for _ in range(500):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 8)):
            at = chance.randrange(len(data))
            match chance.randrange(4):
                case 0:
                    data[at] = chance.randrange(256)
                case 1:
                    del data[at : at + chance.randint(1, 20)]
                case 2:
                    data[at:at] = data[: chance.randint(1, 40)]
                case 3:
                    data[at:at] = bytes(chance.choices(b"\r\n\0 :{}", k=3))
            if not data:
                break
        with socket.create_connection(("127.0.0.1", served.port), timeout=60) as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            answer = b""
            try:
                while got := connection.recv(65536):
                    answer += got
            except ConnectionResetError:
                pass
        assert not answer.startswith(b"HTTP/1.1 5"), (bytes(data), answer)
    assert served.service.trouble is None
    assert served.post("/v1/classify", {"text": "an attack"}).status == 200


def test_what_schemathesis_makes_of_the_schema_gets_what_the_schema_says(served: Served) -> None:
    schemathesis = pytest.importorskip("schemathesis")
    from hypothesis import HealthCheck, given, settings
    from schemathesis.specs.openapi.checks import positive_data_acceptance

    schema = schemathesis.openapi.from_url(f"{served.url}/openapi.json")
    tried = []
    for found in schema.get_all_operations():
        operation = found.ok()

        @settings(
            max_examples=60, deadline=None, derandomize=True, database=None,
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(case=operation.as_strategy())
        def check(case: Any) -> None:
            # no schema can say what is no text: an image, a part of a conversation not known
            case.call_and_validate(timeout=60, excluded_checks=[positive_data_acceptance])

        check()
        tried.append(operation.path)
    assert {"/v1/moderations", "/v1/classify", "/readyz", "/metrics"} <= set(tried)
