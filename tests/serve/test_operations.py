"""What who runs the server relies on: health, metrics, keys, reload, the audit log."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from guardkit.errors import PolicyError, UsageError
from guardkit.hookspecs import hookimpl
from tests.support.serving import (
    POLICY,
    Served,
    Settings,
    load_live,
    plugins_with,
    read_keys,
    serving,
    write_policy,
)

KEY = "0123456789abcdef-key"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path) as server:
        yield server


def keyed(folder: Path) -> Settings:
    (folder / "keys").write_text(f"# ours\n\n{KEY}\nanother-key-0123456789\n")
    return Settings(keys=read_keys(folder / "keys"))


def test_the_policy_and_its_models_can_be_asked_for(served: Served) -> None:
    told = served.get("/v1/policy").json
    router = served.service.live.router
    assert (told["name"], told["hash"]) == ("test", router.hash)
    assert told["categories"]["injection"]["action"] == "block"
    assert told["members"] == router.model_hashes()
    assert served.get("/healthz").json == {"status": "ok"}
    ready = served.get("/readyz").json
    assert (ready["policy"], ready["models"]) == (router.hash, router.model_hashes())


def test_every_answer_has_a_number_and_forbids_what_it_does_not_need(served: Served) -> None:
    first, second = served.get("/healthz"), served.get("/nowhere")
    assert first.headers["x-request-id"] != second.headers["x-request-id"]
    assert "default-src 'none'" in second.headers["content-security-policy"]
    assert second.status == 404
    assert second.json["error"]["type"] == "invalid_request_error"
    assert served.get("/v1/classify").status == 405


def test_metrics_count_what_was_decided(served: Served) -> None:
    served.post("/v1/classify", {"inputs": ["an attack", "a cake", "BROKEN", "CUT off"]})
    served.get("/nowhere/secret")
    assert served.metric('guardkit_verdicts_total{action="block",category="injection"}') == 3
    assert served.metric('guardkit_actions_total{action="allow"}') == 1
    assert served.metric("guardkit_errors_total") == 1
    assert served.metric('guardkit_score_count{category="injection"}') == 3, "BROKEN has none"
    assert served.metric('guardkit_score_bucket{category="injection",le="0.5"}') == 2
    assert served.metric("guardkit_truncations_total") == 1
    assert served.metric('guardkit_member_texts_total{member="only"}') == 4
    assert served.metric('guardkit_requests_total{endpoint="/v1/classify",status="200"}') == 1
    assert served.metric('guardkit_requests_total{endpoint="other",status="404"}') == 1
    assert served.metric("guardkit_queue_size") == 0
    assert served.metric("guardkit_batch_tokens_count") >= 1


def test_a_key_opens_what_judges_and_nothing_needs_one_that_tells_nothing(tmp_path: Path) -> None:
    with serving(tmp_path, keys=keyed(tmp_path).keys) as served:
        for given in ({}, {"authorization": "Bearer wrong"}, {"authorization": f"Basic {KEY}"},
                      {"authorization": "Bearer"}, {"x_api_key": KEY[:-1]}):  # fmt: skip
            for path in ("/v1/classify", "/v1/moderations", "/v1/explain", "/v1/reload",
                         "/beta/litellm_basic_guardrail_api", "/nowhere"):  # fmt: skip
                answer = served.post(path, {"text": "a cake"}, **given)
                assert answer.status == 401
                assert answer.json["error"]["code"] == "invalid_api_key"
        for given in ({"authorization": f"Bearer {KEY}"}, {"x_api_key": KEY},
                      {"authorization": "bearer another-key-0123456789"}):  # fmt: skip
            assert served.post("/v1/classify", {"text": "a cake"}, **given).status == 200
        assert served.get("/v1/policy").status == 401
        for path in ("/", "/page.js", "/docs", "/healthz", "/readyz", "/metrics", "/openapi.json"):
            assert served.get(path).status == 200


@pytest.mark.parametrize("text", ["", "# none\n", "short\n", "with a space in it 0123456789\n"])
def test_a_file_without_a_good_key_is_refused_and_not_quoted(tmp_path: Path, text: str) -> None:
    (tmp_path / "keys").write_text(text)
    with pytest.raises(UsageError) as refused:
        read_keys(tmp_path / "keys")
    assert "short" not in str(refused.value).replace("keys", "")
    assert "with a space" not in str(refused.value)
    with pytest.raises(UsageError, match="cannot be read"):
        read_keys(tmp_path / "absent")


def test_a_policy_is_read_again_while_requests_are_answered(tmp_path: Path) -> None:
    with serving(tmp_path, keys=keyed(tmp_path).keys) as served:
        old = served.service.live.router.hash[:12]
        statuses: list[int] = []
        policies: set[str] = set()
        stop = threading.Event()

        def ask() -> None:
            while not stop.is_set():
                answer = served.post("/v1/classify", {"text": "a cake"}, x_api_key=KEY)
                statuses.append(answer.status)
                policies.add(answer.json["decisions"][0]["policy"])

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        write_policy(tmp_path, POLICY.replace("action: block", "action: flag").replace(
            "{injection: block}", "{injection: flag}"))  # fmt: skip
        told = served.post("/v1/reload", b"", x_api_key=KEY)
        after = served.post("/v1/classify", {"text": "an attack"}, x_api_key=KEY)
        stop.set()
        for thread in threads:
            thread.join()
    assert told.status == 200
    assert after.json["decisions"][0]["action"] == "flag"
    assert after.json["decisions"][0]["policy"] == told.json["hash"][:12] != old
    assert set(statuses) == {200}
    assert old in policies


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        (POLICY.replace("positive: [injection]", "positive: [injektion]"), "injektion"),
        (POLICY.replace("model: model", "model: absent"), "absent"),
        (POLICY.replace("{injection: block}", "{injection: allow}"), "tests[0]"),
        ("nonsense", "policy.yaml"),
    ],
)
def test_a_policy_with_a_mistake_changes_nothing_and_is_told(
    tmp_path: Path, policy: str, said: str
) -> None:
    with serving(tmp_path, keys=keyed(tmp_path).keys) as served:
        before = served.get("/readyz").json["policy"]
        write_policy(tmp_path, policy)
        told = served.post("/v1/reload", b"", x_api_key=KEY)
        assert told.status == 409
        assert said in told.json["error"]["message"]
        assert served.get("/readyz").json["policy"] == before
        answer = served.post("/v1/classify", {"text": "an attack"}, x_api_key=KEY)
        assert answer.json["decisions"][0]["action"] == "block"
        assert served.metric('guardkit_reloads_total{outcome="refused"}') == 1


def test_without_keys_nobody_reloads_over_http(served: Served) -> None:
    assert served.post("/v1/reload", b"").status == 403


def test_a_policy_that_fails_its_own_tests_is_not_served(tmp_path: Path) -> None:
    plugins = plugins_with()[1]
    path = write_policy(tmp_path, POLICY.replace("{injection: block}", "{injection: allow}"))
    with pytest.raises(UsageError, match=r"tests\[0\].*guardkit policy test"):
        load_live(Settings(policy=path), plugins)
    write_policy(tmp_path, "version: 2")
    with pytest.raises(PolicyError):
        load_live(Settings(policy=path), plugins)


def test_the_audit_log_has_a_line_for_each_text_and_no_text(tmp_path: Path) -> None:
    log = tmp_path / "audit.jsonl"
    with serving(tmp_path, audit_log=log) as served:
        served.post("/v1/classify", {"inputs": ["an attack", {"text": "a cake", "id": "mine"}]})
        answer = served.post("/v1/moderations", {"input": "BROKEN"})
    first, second, third = map(json.loads, log.read_text().splitlines())
    assert first["text_sha256"] == hashlib.sha256(b"an attack").hexdigest()
    assert (first["action"], first["categories"]) == ("block", {"injection": "block"})
    assert first["characters"] == 9
    assert (second["action"], second["failed"], third["failed"]) == ("allow", False, True)
    assert third["id"] == f"{answer.headers['x-request-id']}/0"
    for word in ("attack", "cake", "mine", "BROKEN"):
        assert word not in log.read_text()
    assert log.stat().st_mode & 0o777 == 0o600


def test_a_key_makes_hashes_that_nobody_else_can_make(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GUARDKIT_AUDIT_KEY", "secret")
    log = tmp_path / "audit.jsonl"
    with serving(tmp_path, audit_log=log, audit_text_share=1.0) as served:
        served.post("/v1/classify", {"text": "an attack"})
    (line,) = map(json.loads, log.read_text().splitlines())
    assert line["text_sha256"] != hashlib.sha256(b"an attack").hexdigest()
    assert line["text"] == "an attack", "all texts were asked for"


def test_what_cannot_be_logged_is_not_answered(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "audit.jsonl"
    log.parent.mkdir()
    with serving(tmp_path, audit_log=log) as served:
        log.unlink()
        log.mkdir()  # no longer a file to write to
        for path in ("/v1/classify", "/v1/explain"):
            assert served.post(path, {"text": "a cake"}).status == 503
        log.rmdir()
        assert served.post("/v1/classify", {"text": "a cake"}).status == 200


def test_a_log_that_cannot_be_written_is_refused_at_the_start(tmp_path: Path) -> None:
    settings = Settings(policy=write_policy(tmp_path), audit_log=tmp_path / "absent" / "log")
    with pytest.raises(Exception, match="cannot be written"):
        load_live(settings, plugins_with()[1])


def test_the_hook_of_a_plugin_that_the_policy_names_is_called(tmp_path: Path) -> None:
    heard: list[str] = []

    class Ear:
        @hookimpl
        def decided(self, texts: list[str], decisions: object, policy: object) -> None:
            heard.extend(texts)

    policy = f"{POLICY}plugins: [ear]\n"
    with serving(tmp_path, policy, modules={"ear": Ear()}) as served:
        served.post("/v1/classify", {"text": "a cake"})
    assert heard == ["a cake"]


def test_a_policy_in_the_shadow_is_counted_where_it_differs_and_changes_nothing(
    tmp_path: Path,
) -> None:
    strict = tmp_path / "strict.yaml"
    strict.write_text(POLICY.replace("probability: 0.5", "probability: 0.05"))
    with serving(tmp_path, shadow=strict) as served:
        inputs = ["an attack", "a cake", "BROKEN secret"]
        decisions = served.post("/v1/classify", {"inputs": inputs}).json["decisions"]
        told = served.get("/v1/policy").json
        assert served.metric('guardkit_shadow_total{live="allow",shadow="block"}') == 1
        assert served.metric('guardkit_shadow_total{live="block",shadow="block"}') == 2
        assert not served.post("/v1/moderations", {"input": "a cake"}).json["results"][0]["flagged"]
    assert [d["action"] for d in decisions] == ["block", "allow", "block"]
    assert [d["shadow"]["action"] for d in decisions] == ["block", "block", "block"]
    assert told["shadow"]["hash"] == served.service.live.router.shadow.hash  # type: ignore[union-attr]
    assert "secret" not in str(decisions[2]["shadow"]), "it may be the text of another request"


def test_a_batch_that_hangs_makes_the_server_unhealthy(tmp_path: Path) -> None:
    go = threading.Event()

    def hangs(_: str, text: str) -> list[float]:
        if "HANG" in text:
            go.wait(60)
        return [0.0, 2.0 if "attack" in text else -2.0]

    with serving(tmp_path, logits=hangs, hung_s=0.05, timeout_s=0.5) as served:
        assert served.post("/v1/classify", {"text": "HANG"}).status == 503
        assert served.get("/healthz").status == 503
        assert served.get("/readyz").status == 503
        go.set()
        while served.service.batcher.busy_s:
            time.sleep(0.001)
        assert served.get("/healthz").status == 200
