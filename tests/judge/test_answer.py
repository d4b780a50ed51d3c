"""What a response says: probabilities of the token that answers, or a share of votes."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from guardkit_judge.answer import (
    LARGEST,
    NoAnswerError,
    of_votes,
    read_answer,
    read_completion,
)
from hypothesis import given
from hypothesis import strategies as st

from tests.support.stub_endpoint import completion


def log_odds(said: str, chances: dict[str, float], **more: Any) -> float | None:
    body = json.dumps(completion(said, chances, **more)).encode()
    return read_answer(read_completion(body), structured=False).log_odds


@given(st.floats(0.001, 0.999))
def test_two_answers_that_are_all_there_is_give_their_own_odds(p: float) -> None:
    said = "yes" if p >= 0.5 else "no"
    got = log_odds(said, {"yes": p, "no": 1 - p})
    assert got == pytest.approx(math.log(p / (1 - p)), abs=1e-9)


def test_every_spelling_of_an_answer_counts() -> None:
    chances = {"Yes": 0.5, " yes": 0.2, "YES": 0.1, "no": 0.1, "\u0120No": 0.05, "maybe": 0.05}
    assert log_odds("Yes", chances) == pytest.approx(math.log(0.8 / 0.15))


def test_a_side_that_is_not_listed_has_at_most_what_is_left() -> None:
    assert log_odds("yes", {"yes": 0.9}) == pytest.approx(math.log(0.9 / 0.1))
    # nor more than the least that is listed: it would be listed
    assert log_odds("no", {"no": 0.6, "maybe": 0.01}) == pytest.approx(math.log(0.01 / 0.6))


def test_certainty_stays_finite() -> None:
    assert log_odds("yes", {"yes": 1.0}) == pytest.approx(LARGEST)
    assert log_odds("no", {"no": 1.0, "yes": 5e-324}) == pytest.approx(-LARGEST)


def test_the_token_that_answers_is_found_behind_others() -> None:
    got = log_odds("yes", {"yes": 0.7, "no": 0.3}, tokens=["<think>", "\n", "hm", '"'])
    assert got == pytest.approx(math.log(0.7 / 0.3))


def test_an_answer_in_pieces_has_no_probability() -> None:
    assert log_odds("yes", {"ye": 0.7, "no": 0.3}) is None


@pytest.mark.parametrize(
    ("said", "yes"), [('{"answer": "yes"}', True), (' {"answer":"No"} ', False)]
)
def test_structured_answers_are_read_as_json(said: str, yes: bool) -> None:
    body = json.dumps(completion(said)).encode()
    assert read_answer(read_completion(body), structured=True).yes is yes


@pytest.mark.parametrize("said", ["yes", '{"answer": true}', '{"verdict": "yes"}', "[]", "{"])
def test_other_json_is_no_answer(said: str) -> None:
    body = json.dumps(completion(said)).encode()
    with pytest.raises(NoAnswerError):
        read_answer(read_completion(body), structured=True)


@given(st.integers(1, 100).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_votes_rise_and_are_even_where_they_are_even(counted: tuple[int, int]) -> None:
    yes, n = counted
    assert of_votes(yes, n) == pytest.approx(-of_votes(n - yes, n))
    if yes < n:
        assert of_votes(yes, n) < of_votes(yes + 1, n)
