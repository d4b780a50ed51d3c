"""Benign texts that sound like attacks: what a detector of attacks must let pass.

Written for guardkit and frozen before anything was measured on them; no model is trained on them.
"""

from __future__ import annotations

from pathlib import Path


def bundled() -> list[str]:
    """Return the bundled texts, for detectors of prompt injection, in English."""
    return Path(__file__).with_suffix(".txt").read_text("utf-8").splitlines()
