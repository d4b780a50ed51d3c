"""The IMDB experiment, in full and in little: how large networks are, where everything is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.lib.paths import ROOT
from benchmarks.lib.train_command import set_options


@dataclass(frozen=True)
class Experiment:
    """Where things are kept, and ``results``. ``committed`` is the trained network that the
    repository holds, seed 0; ``options`` for a plugin or a model prevail over the model's own."""

    build: Path
    results: Path
    committed: Path | None = None
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def trained(self, model: str, seed: int) -> Path:
        """Return the folder that ``train`` puts a model into."""
        return self.build / "models" / f"{model}-{seed}"

    def model(self, model: str, seed: int) -> Path:
        """Return the folder that rows read a model from."""
        committed = self.committed
        if model == "mdlm" and seed == 0 and committed is not None and committed.is_dir():
            return committed
        return self.trained(model, seed)

    def row(self, name: str, seed: int) -> Path:
        """Return the file that a row keeps its log-odds in."""
        return self.build / "rows" / f"{name}-{seed}.npz"


def training_record(folder: Path) -> Path:
    """Return the file beside a model that says how it was trained."""
    return folder.with_name(f"{folder.name}.training.json")


FULL = Experiment(
    ROOT / "build" / "imdb",
    ROOT / "benchmarks" / "results" / "imdb.json",
    ROOT / "benchmarks" / "artefacts" / "imdb-mdlm",
)
#: The same comparisons for who has one core: a network in a quarter of an hour or two.
QUICK = Experiment(
    ROOT / "build" / "imdb-quick",
    ROOT / "benchmarks" / "results" / "imdb_quick.json",
    options={
        "mdlm": set_options(
            "vocab_size=4096", "hidden_dim=128", "n_blocks=2", "n_heads=2", "cond_dim=64",
            "lr_muon=0.02", "lr=0.002", "epochs=0.4",
        ),
        "mdlm-pretrained": set_options("pretrain_epochs=0.08"),
        "gpt2": set_options("vocab_size=4096", "width=128", "layers=2", "heads=2", "epochs=1"),
    },
)  # fmt: skip
