"""A third party's plugin that misbehaves as the text says, installed for a process to find."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

#: What a text can make the plugin do.
DEEDS = (
    "raise", "shape", "rows", "nan", "none", "exit", "clear", "rewrite", "shared", "object",
    "surrogate", "recursion", "memory", "stop", "assertion", "panic", "base",
)  # fmt: skip
FATAL = ("die", "hang", "sleep")

CODE = '''
import os, signal, sys, time
from types import SimpleNamespace
import numpy as np
from pydantic import BaseModel
from guardkit import hookimpl
from guardkit.types import RawScores

BUFFER = np.zeros((4096, 2), np.float32)
#: What pyo3 makes of a panic in Rust, such as in a tokenizer.
PanicException = type("PanicException", (BaseException,), {"__module__": "pyo3_runtime"})

def forget(path):
    """Return whether a deed is to be done: once only where its file is there."""
    if not os.path.exists(path):
        return True
    try:
        os.mkdir(path + ".done")
    except FileExistsError:
        return False
    return True

class Odd:
    id, labels = "odd", ("benign", "odd")
    def score(self, texts, *, novelty=False, evidence=False):
        n, done = len(texts), {w for text in texts for w in text.split() if w.startswith("DO-")}
        logits = np.array([[0.0, int(t.split()[-1]) % 2 * 4 - 2] for t in texts], np.float32)
        deed = next(iter(done), "DO-nothing").removeprefix("DO-")
        if deed == "raise": raise RuntimeError("I do not like it")
        if deed == "assertion": raise AssertionError
        if deed == "surrogate": raise ValueError("\\\\ud800 and \\0")
        if deed == "recursion": return self.score(texts)
        if deed == "memory": raise MemoryError
        if deed == "stop": raise StopIteration
        if deed == "panic": raise PanicException("called `Option::unwrap()` on a `None` value")
        if deed == "base": raise BaseException
        if deed == "exit": sys.exit(0)
        if deed == "none": return None
        if deed == "shape": logits = logits[:, :1]
        if deed == "rows": logits = logits[:-1]
        if deed == "nan": logits[[("DO-" in t) for t in texts]] = np.nan
        if deed == "object": logits = logits.astype(str).astype(object); logits[:] = "x"
        if deed == "clear": texts.clear()
        if deed == "rewrite": texts[:] = ["rewritten 1"] * n
        if deed == "shared":
            BUFFER[:n] = logits
            logits = BUFFER[:n]
        if deed == "die" and forget("once-die"): os.kill(os.getpid(), signal.SIGKILL)
        if deed == "sleep" and forget("once-sleep"): time.sleep(3600)
        while deed == "hang" and forget("once-hang"):
            try: time.sleep(0.01)
            except BaseException: pass
        ones = np.ones(n, np.int64)
        return RawScores(logits, ones, ones, np.zeros(n, bool))

class Family:
    name, summary, config, presets, builtin = "odd", "misbehaves", BaseModel, {}, None
    def train(self, *a, **k): raise NotImplementedError
    def load(self, path, *, device, backend): return Odd()

@hookimpl
def register_classifiers():
    return [Family()]
'''

POLICY = """
version: 1
name: odd
members: {only: {plugin: odd, model: model}}
categories:
  odd:
    positive: [odd]
    decide: {member: only}
    flag_at: {probability: 0.5}
    action: flag
    on_error: closed
"""


def install(folder: Path) -> None:
    """Write the plugin, a model of its family and a policy that asks it to ``folder``."""
    from guardkit.calibration.maps import Calibration
    from guardkit.model.artefact import CALIBRATION, CONFIG, ArtefactConfig, seal, write_json

    site = folder / "site"
    info = site / "guardkit_odd-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "guardkit_odd.py").write_text(CODE, "utf-8")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: guardkit-odd\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[guardkit]\nodd = guardkit_odd\n")
    model = folder / "model"
    model.mkdir()
    labels = ["benign", "odd"]
    config = ArtefactConfig(family="odd", task="multiclass", labels=labels, network={})
    write_json(model / CONFIG, config)
    calibration = Calibration(
        task="multiclass", labels=labels, scale=[1.0, 1.0], bias=[0.0, 0.0], prior=[0.5, 0.5],
        n=100, data="0" * 64, ece_before=0, ece_after=0, log_loss_before=0, log_loss_after=0,
    )  # fmt: skip
    write_json(model / CALIBRATION, calibration)
    seal(model)
    (folder / "policy.yaml").write_text(POLICY, "utf-8")


def installed(folder: Path) -> None:
    """Make this process, and those it starts, find the plugin in ``folder``."""
    sys.path.insert(0, str(folder / "site"))
    os.environ["PYTHONPATH"] = os.pathsep.join(
        [str(folder / "site"), *filter(None, [os.environ.get("PYTHONPATH")])]
    )


def write_deeds(path: Path, rows: int, deeds: dict[int, str]) -> None:
    """Write an input in which row i's text tells the plugin to do ``deeds[i]``."""
    from .runs import PLANTED

    texts = (
        f"{PLANTED} DO-{deeds[i]} {i}" if i in deeds else f"{PLANTED} {i}" for i in range(rows)
    )
    lines = (json.dumps({"id": i, "text": text}) + "\n" for i, text in enumerate(texts))
    path.write_text("".join(lines), "utf-8")
