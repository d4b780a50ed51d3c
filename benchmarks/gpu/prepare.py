"""Put everything a GPU machine without network needs into one folder.

    python -m benchmarks.gpu.prepare PATH/TO/imdb  # -> benchmarks/gpu/data, which git ignores

Tokenises every review beforehand, with the BPE that ``guardkit train --pretrain-data
PATH/TO/imdb`` would learn (from training and unlabelled text, never test), and fetches wheels of
the few packages that an image with PyTorch and transformers may lack. The splits are those of
``guardkit train``, and so is what is left out: any text that a later set holds.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import typer
from guardkit_mdlm.config import PRESETS, MdlmConfig
from guardkit_mdlm.tokenizer import encode

from benchmarks.gpu.pack import TOKENS, Packed, TokenSet, write
from guardkit import train_bpe
from guardkit.data.hashes import texts_hash
from guardkit.data.splits import DataSplits, load_data_splits
from guardkit.types import Examples

DATA = Path(__file__).parent / "data"
WHEELS = "wheels"
#: What guardkit's own modules import to train and score, beyond torch, transformers, tokenizers,
#: safetensors, einops, numpy, scipy, pluggy, typer and rich.
PACKAGES = (
    "lazy-loader", "msgspec", "pydantic", "pydantic-core", "annotated-types", "typing-inspection",
    "typing-extensions",
)  # fmt: skip


def main(
    imdb: str,
    out: Path = DATA,
    preset: str = "base",
    vocab_size: int | None = None,
    wheels: bool = True,
    python: str = "3.12",
) -> None:
    """IMDB is a data spec of ``guardkit train``; PYTHON the version on the GPU machine."""
    options = dict(PRESETS[preset]) | ({"vocab_size": vocab_size} if vocab_size else {})
    config = MdlmConfig.model_validate(options)
    parts = load_data_splits(imdb, imdb, None)
    assert parts.test is not None, f"{imdb}: no test split"
    extra = [] if parts.pretrain is None else parts.pretrain.texts
    tokenizer = train_bpe(
        [*parts.train.texts, *extra], vocab_size=config.vocab_size, lower_case=config.lower_case
    )
    sets = _sets(parts)
    packed = {k: TokenSet(encode(tokenizer, e.texts), e.labels_N) for k, e in sets.items()}
    hashed = sets | ({"pretrain": parts.pretrain} if parts.pretrain else {})
    hashes = {k: texts_hash(e.texts, [str(y) for y in e.labels_N]) for k, e in hashed.items()}
    about = {"preset": preset, "vocab_size": config.vocab_size, "hashes": hashes}
    write(out / TOKENS, Packed(tokenizer, parts.train.label_names, packed, about))
    for name, part in packed.items():
        print(f"{name}: {len(part):,} texts, {sum(len(i) for i in part.ids):,} tokens")
    if wheels:
        _fetch(out / WHEELS, python)
    files = [path for path in out.rglob("*") if path.is_file()]
    for path in files:
        print(f"{path.stat().st_size / 2**20:6.1f} MiB  {path.relative_to(out)}")
    print(f"{sum(path.stat().st_size for path in files) / 2**20:6.1f} MiB in {out}")


def _sets(parts: DataSplits) -> dict[str, Examples]:
    """Return every set; ``unlabelled`` is the pretraining text that ``train`` does not hold."""
    assert parts.test is not None
    sets = {"train": parts.train, "validation": parts.validation,
            "calibration": parts.calibration, "test": parts.test}  # fmt: skip
    if parts.pretrain is not None:
        known = set(parts.train.texts)
        new = [i for i, text in enumerate(parts.pretrain.texts) if text not in known]
        sets["unlabelled"] = parts.pretrain.select(np.array(new, np.int64))
    return sets


def _fetch(folder: Path, python: str) -> None:
    """Download PACKAGES as wheels, in the versions that are installed here."""
    from importlib.metadata import version

    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.whl"):
        old.unlink()
    platforms = [f"--platform=manylinux_2_{n}_x86_64" for n in (28, 27, 17)]
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:",
         f"--python-version={python}", "--implementation=cp", *platforms,
         "--platform=manylinux2014_x86_64", "--dest", str(folder),
         *(f"{name}=={version(name)}" for name in PACKAGES)],
        check=True,
    )  # fmt: skip


if __name__ == "__main__":
    typer.run(main)
