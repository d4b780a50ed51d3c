"""NB-SVM (examples/guardkit-nbsvm) on IMDB: the baseline a neural classifier has to beat.

    python benchmarks/nbsvm_imdb.py PATH/TO/imdb

Trains on all of the training reviews, options at their defaults, and scores the test reviews;
the figures go to benchmarks/results/nbsvm_imdb.json.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import sklearn

from guardkit.data import load_examples
from guardkit.metrics import bootstrap
from guardkit.types import TrainingData

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "nbsvm_imdb.json"
sys.path.insert(0, str(ROOT / "examples" / "guardkit-nbsvm"))


def main(imdb: str) -> None:
    from guardkit_nbsvm import register_classifiers

    (family,) = register_classifiers()
    splits = load_examples(imdb)
    train, test = splits["train"], splits["test"]
    options = family.config()
    with tempfile.TemporaryDirectory() as work:
        started = time.perf_counter()
        folder = family.train(
            TrainingData(train, train), options, Path(work), pretrain=None, init=None,
            resume=False, device="cpu", progress=lambda *_: None,
        )  # fmt: skip
        trained = time.perf_counter()
        classifier = family.load(folder, device="cpu", backend="torch")
        predicted_N = classifier.score(test.texts).logits_NC.argmax(1)
        scored = time.perf_counter()
    correct_N = predicted_N == test.labels_N
    record = {
        "script": "benchmarks/nbsvm_imdb.py",
        "commit": subprocess.run(
            ["git", "-C", str(ROOT), "rev-parse", "HEAD"],
            check=True, capture_output=True, text=True,
        ).stdout.strip(),
        "machine": platform.machine(),
        "versions": {"python": platform.python_version(), "scikit-learn": sklearn.__version__},
        "conditions": "bootstrap of 1000 over films, seed 0; nothing in training is random",
        "options": options.model_dump(),
        "texts": {"train": len(train), "test": len(test)},
        "train_s": trained - started,
        "score_s": scored - trained,
        **bootstrap(
            lambda w_N: {"accuracy": float(w_N @ correct_N / w_N.sum())},
            test.groups, resamples=1000, seed=0,
        ),
    }  # fmt: skip
    RESULTS.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main(sys.argv[1])
