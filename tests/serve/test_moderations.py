"""``POST /v1/moderations``: OpenAI's form, asked by hand and by OpenAI's own client."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from guardkit.errors import UsageError
from tests.support.serving import (
    POLICY,
    Served,
    Settings,
    load_live,
    plugins_with,
    serving,
    write_policy,
)

OPEN = POLICY.replace("on_error: closed", "on_error: open")
WORDS = f"""{POLICY.partition("tests:")[0]}
  secret:
    decide: {{pattern: {{re2: AKIA}}}}
    flag_at: {{probability: 0.5}}
    action: flag
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    with serving(folder, WORDS, openai_names={"illicit": "secret"}) as server:
        yield server


def test_an_answer_has_openais_form(served: Served) -> None:
    answer = served.post("/v1/moderations", {"input": "an attack", "model": "omni-moderation"})
    assert answer.status == 200
    told = answer.json
    assert told["id"].startswith("modr-")
    assert told["model"] == f"guardkit-{served.service.live.router.hash[:12]}"
    (result,) = told["results"]
    assert result["flagged"] is True
    assert result["categories"] == {"injection": True, "secret": False, "illicit": False}
    assert result["category_scores"]["injection"] == pytest.approx(0.8808, abs=1e-4)
    assert result["category_scores"]["secret"] == 0
    assert result["category_applied_input_types"]["illicit"] == ["text"]


def test_each_text_has_a_result_in_order(served: Served) -> None:
    texts = ["a cake", "an attack", "AKIA", ""]
    results = served.post("/v1/moderations", {"input": texts}).json["results"]
    assert [r["flagged"] for r in results] == [False, True, True, False]
    assert [r["categories"]["illicit"] for r in results] == [False, False, True, False]


def test_parts_are_judged_as_one_text(served: Served) -> None:
    parts = [{"type": "text", "text": "AK"}, {"type": "text", "text": "an attack"}]
    (result,) = served.post("/v1/moderations", {"input": parts}).json["results"]
    assert result["flagged"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"input": [{"type": "image_url", "image_url": {"url": "http://127.0.0.1:1/x"}}]}, "image"),
        ({"input": [{"type": "text", "text": "a"}, {"type": "image_url"}]}, "image"),
        ({"input": []}, "at least 1"),
        ({"input": 5}, "input"),
        ({"input": ["a", 5]}, "input"),
        ({"input": {"type": "text", "text": "a"}}, "input"),
        ({}, "required"),
        ([], "dictionary"),
        ({"input": ["a"] * 1025}, "1024"),
    ],
)
def test_what_is_not_text_is_refused(served: Served, body: Any, said: str) -> None:
    answer = served.post("/v1/moderations", body)
    assert answer.status == 400
    error = answer.json["error"]
    assert error["type"] == "invalid_request_error"
    assert said in error["message"]


def test_a_text_that_cannot_be_judged_is_flagged_with_the_highest_score(served: Served) -> None:
    (result,) = served.post("/v1/moderations", {"input": "BROKEN"}).json["results"]
    assert result["flagged"]
    assert result["categories"]["injection"]
    assert result["category_scores"]["injection"] == 1
    assert "could not be judged" in result["guardkit"]["error"]


@pytest.mark.parametrize("text", ["BROKEN", "NAN"])
def test_a_policy_that_lets_the_unjudged_pass_gets_a_503(tmp_path: Path, text: str) -> None:
    with serving(tmp_path, OPEN) as served:
        assert served.post("/v1/moderations", {"input": ["a cake", text]}).status == 503
        assert served.post("/v1/moderations", {"input": "a cake"}).status == 200


def test_a_policy_in_shadow_flags_nothing_and_fails_nothing(tmp_path: Path) -> None:
    policy = POLICY.replace("name: test", "name: test\nmode: shadow")
    with serving(tmp_path, policy) as served:
        results = served.post("/v1/moderations", {"input": ["an attack", "BROKEN"]}).json["results"]
    assert [r["flagged"] for r in results] == [False, False]
    assert [r["categories"]["injection"] for r in results] == [False, False]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ({"violence": "injektion"}, "has no category 'injektion', did you mean 'injection'?"),
        ({"violense": "injection"}, "no category of OpenAI's, did you mean 'violence'?"),
    ],
)
def test_a_category_that_nobody_judges_is_refused_at_the_start(
    tmp_path: Path, names: dict[str, str], said: str
) -> None:
    settings = Settings(policy=write_policy(tmp_path), openai_names=names)
    with pytest.raises(UsageError, match=said.replace("?", r"\?")):
        load_live(settings, plugins_with()[1])


def test_openais_own_client_reads_the_answers(served: Served) -> None:
    openai = pytest.importorskip("openai")
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="any", max_retries=0) as client:
        told = client.moderations.create(input=["an attack", "a cake"], model="any")
        assert [result.flagged for result in told.results] == [True, False]
        assert told.results[0].categories.illicit is False
        assert told.results[0].categories.injection is True
        assert told.results[0].category_scores.injection > 0.5
        parts = [{"type": "text", "text": "an attack"}]
        assert client.moderations.create(input=parts).results[0].flagged
        image = [{"type": "image_url", "image_url": {"url": "https://example.com/x.png"}}]
        with pytest.raises(openai.BadRequestError, match="only text is judged"):
            client.moderations.create(input=image)
        with pytest.raises(openai.NotFoundError):
            client.models.list()


def test_openais_asynchronous_client_reads_the_answers(served: Served) -> None:
    openai = pytest.importorskip("openai")

    async def ask() -> list[bool]:
        url = f"{served.url}/v1"
        async with openai.AsyncOpenAI(base_url=url, api_key="any", max_retries=0) as client:
            texts = ["an attack" if i % 3 else "a cake" for i in range(60)]
            told = await asyncio.gather(*(client.moderations.create(input=t) for t in texts))
        return [answer.results[0].flagged for answer in told]

    assert asyncio.run(ask()) == [bool(i % 3) for i in range(60)]
