"""Which pooling and which neutral label a set of labels calls for."""

from __future__ import annotations

import pytest

from guardkit import ConfigError, choose_pooling


def test_a_label_that_says_nothing_found_makes_one_window_decide() -> None:
    assert choose_pooling(["benign", "injection"], None, "auto") == ("max", "benign")
    assert choose_pooling(["spam", "HAM"], None, "auto") == ("max", "HAM")


def test_labels_that_all_describe_the_text_are_averaged() -> None:
    assert choose_pooling(["neg", "pos"], None, "auto") == ("mean", None)


def test_two_candidates_for_neutral_are_no_reason_to_guess() -> None:
    assert choose_pooling(["safe", "none", "threat"], None, "auto") == ("mean", None)


def test_a_neutral_label_given_by_name_is_used() -> None:
    assert choose_pooling(["neg", "pos"], "neg", "auto") == ("max", "neg")
    assert choose_pooling(["safe", "none", "threat"], "none", "auto") == ("max", "none")


def test_pooling_asked_for_prevails_and_neutral_stays_known() -> None:
    assert choose_pooling(["benign", "injection"], None, "mean") == ("mean", "benign")
    assert choose_pooling(["benign", "injection"], None, "max") == ("max", "benign")


def test_a_neutral_label_that_does_not_exist_is_refused_with_the_labels_there_are() -> None:
    with pytest.raises(ConfigError, match=r"'clean' is not a label; allowed: benign, injection"):
        choose_pooling(["benign", "injection"], "clean", "auto")


def test_max_pooling_without_a_neutral_label_is_refused_and_says_what_to_set() -> None:
    with pytest.raises(ConfigError, match="set neutral to one of neg, pos"):
        choose_pooling(["neg", "pos"], None, "max")
