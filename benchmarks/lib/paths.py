"""Where things are in the repository."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
#: Prompts written for guardkit, attacks and harmless ones.
SAMPLE = ROOT / "examples" / "sample"
NBSVM_EXAMPLE = ROOT / "examples" / "guardkit-nbsvm"
