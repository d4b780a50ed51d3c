"""A policy of one member, which finds an attack where a text says so and fails at BROKEN ones."""

from __future__ import annotations

POLICY = """\
version: 1
name: test
members:
  only: {plugin: fake, model: model}
categories:
  injection:
    positive: [injection]
    decide: {member: only}
    flag_at: {probability: 0.5}
    action: block
"""


def logits_of(model: str, text: str) -> list[float]:
    if "BROKEN" in text:
        raise ValueError("cannot score this")
    return [0.0, 2.0 if "attack" in text else -2.0]
