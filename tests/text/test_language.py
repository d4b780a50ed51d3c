"""Script and language of a text are guessed, or said to be unsure."""

from __future__ import annotations

import pytest

from guardkit.text.language import NO_LETTERS, UNSURE, language, script


@pytest.mark.parametrize(
    ("text", "written_in", "spoken"),
    [
        ("What is the capital of France?", "Latin", "en"),
        ("Was ist die Hauptstadt von Frankreich und wie heißt der Fluss?", "Latin", "de"),
        ("Quelle est la capitale de la France et qui est le président ?", "Latin", "fr"),
        ("¿Cuál es la capital de los Países Bajos y por qué?", "Latin", "es"),
        ("Qual è la capitale della Francia e chi sono gli abitanti?", "Latin", "it"),
        ("Qual é a capital da França e por que não você?", "Latin", "pt"),
        ("Wat is de hoofdstad van het land en hoe ver is dat van hier?", "Latin", "nl"),
        ("Fransa için bu çok önemli bir soru", "Latin", "tr"),
        ("法国的首都是哪里", "Chinese characters", "zh"),
        ("フランスの首都はどこですか", "Japanese kana", "ja"),
        ("프랑스의 수도는 어디입니까?", "Hangul", "ko"),
        ("Какая столица Франции?", "Cyrillic", "ru and others"),
        ("ما هي عاصمة فرنسا؟", "Arabic", "ar and others"),
        ("Hello!", "Latin", UNSURE),
        ("👍 123", NO_LETTERS, UNSURE),
        ("", NO_LETTERS, UNSURE),
    ],
)
def test_script_and_language_of_a_sentence(text: str, written_in: str, spoken: str) -> None:
    assert (script(text), language(text)) == (written_in, spoken)
