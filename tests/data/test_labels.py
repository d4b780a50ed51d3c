"""Labels that nobody knows are refused, by name and with those that are known."""

from __future__ import annotations

import numpy as np
import pytest

from guardkit.data.labels import labelled, refuse_other_labels, refuse_unknown_labels
from guardkit.errors import DataError
from guardkit.types import UNLABELLED, Examples


def test_examples_without_a_label_are_left_out_and_names_stay() -> None:
    examples = Examples(["a", "b", "c"], np.array([1, UNLABELLED, 0]), ("x", "y", "z"))
    kept = labelled(examples)
    assert kept.texts == ["a", "c"]
    assert kept.labels_N.tolist() == [1, 0]
    assert kept.label_names == ("x", "y", "z")


def test_a_label_that_is_not_the_models_is_named() -> None:
    refuse_other_labels(["spam"], ["ham", "spam"])
    with pytest.raises(DataError, match="have label 'odd', the model ham, spam; keep some rows"):
        refuse_other_labels(["spam", "odd"], ["ham", "spam"])


def test_a_label_that_nobody_knows_is_named_with_what_to_do() -> None:
    refuse_unknown_labels(["a"], {"a", "b"}, to="the policy")
    with pytest.raises(DataError, match=r"mail: has label 'c', unknown to it \(a, b\); stop"):
        refuse_unknown_labels(["a", "c"], {"b", "a"}, to="it", where="mail: has", do="stop")
    with pytest.raises(DataError, match=r"unknown to it \(none\); keep some rows with \?where="):
        refuse_unknown_labels(["a"], set(), to="it")
