"""Train a model of the IMDB table with the project's own command.

    python -m benchmarks.imdb.train PATH/TO/imdb gpt2-head  # -> build/imdb/models/gpt2-head-0

With --quick a smaller network, into build/imdb-quick. What an interrupted call left is resumed.
PATH/TO/imdb is as for ``benchmarks.imdb.measure``.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import dataclass

import typer

from benchmarks.imdb.experiment import FULL, QUICK, training_record
from benchmarks.lib.paths import ROOT
from benchmarks.lib.provenance import commit, machine
from benchmarks.lib.train_command import set_options

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True)
class Trained:
    """A model that takes long, and how it is trained."""

    plugin: str
    options: tuple[str, ...]
    data: str | None = None  # what another script made of the reviews, in their place


#: The network of mdlm's preset small, as a GPT-2: as wide and deep, the same text, and as many
#: epochs as take two cores about as long as MDLM's.
GPT2 = (
    "init=scratch", "width=256", "layers=4", "heads=4", "vocab_size=8192", "window_tokens=256",
    "overlap_tokens=32", "batch_tokens=4096", "pretrain_epochs=0", "epochs=2",
)  # fmt: skip
#: What two cores do in an hour. On a GPU: benchmarks/gpu, preset base.
MDLM = ("pretrain_epochs=0", "epochs=1.2", "validations=4")
#: What else is tried is compared with the network alone.
ALONE = ("ngrams=0",)
#: On from the committed network for about as long again, on labels another model gave.
FROM_COMMITTED = ("--preset", "small", "--init", "benchmarks/artefacts/imdb-mdlm")
TAUGHT = (
    "optimizer=muon", "lr_body=0.0006", "lr=0.0006", "lr_muon=0.005", "pretrain_epochs=0",
    "epochs=0.45", "validations=4", *ALONE,
)  # fmt: skip

TRAINED = {
    "mdlm": Trained("mdlm", ("--preset", "small", *set_options(*MDLM))),
    "mdlm-pretrained": Trained(
        "mdlm", ("--preset", "small", *set_options(*MDLM, *ALONE, "pretrain_epochs=1"))
    ),
    "mdlm-gpt2-features": Trained(
        "mdlm", ("--preset", "small", *set_options(*MDLM, *ALONE, "features={models}/gpt2-head-0"))
    ),
    "mdlm-taught": Trained("mdlm", (*FROM_COMMITTED, *set_options(*TAUGHT)), "build/imdb/taught"),
    "gpt2-head": Trained("gpt2", set_options("rule=head", *GPT2)),
    "gpt2-likelihood": Trained("gpt2", set_options("rule=likelihood", *GPT2)),
    "gpt2-hub": Trained("gpt2", ("--preset", "finetune")),
}


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def main(context: typer.Context, data: str, model: str, seed: int = 0, quick: bool = False) -> None:
    """Train MODEL with `guardkit train`; further options are handed to it, and prevail. Writes how
    long it took, and on what, beside the model."""
    experiment = QUICK if quick else FULL
    if model not in TRAINED:
        raise typer.BadParameter(f"no model {model!r}; there are {', '.join(TRAINED)}")
    if quick and model == "mdlm-taught":
        raise typer.BadParameter("mdlm-taught goes on from the committed network: not --quick")
    trained, out = TRAINED[model], experiment.trained(model, seed)
    partial = out.with_name(f"{out.name}.partial")
    options = [*trained.options, *set_options(f"seed={seed}")]
    for name in dict.fromkeys((trained.plugin, model)):
        options += experiment.options.get(name, ())
    models = str(out.parent.relative_to(ROOT)) if out.is_relative_to(ROOT) else str(out.parent)
    options = [word.replace("{models}", models) for word in [*options, *context.args]]

    def command(data: str, out: str) -> list[str]:
        data = trained.data or data
        return ["guardkit", "train", "--plugin", trained.plugin, "--data", data,
                "--pretrain-data", data, *options, "--out", out]  # fmt: skip

    resume = ["--resume"] if partial.exists() else []
    out.parent.mkdir(parents=True, exist_ok=True)
    # Ctrl-C is for the child, which saves its state; the time it took counts all the same
    signal.signal(signal.SIGINT, lambda *_: None)
    started = time.perf_counter()
    status = subprocess.Popen([sys.executable, "-m", *command(data, str(out)), *resume]).wait()
    seconds = time.perf_counter() - started
    if status == 0 or partial.exists():
        shown = " ".join(command("PATH/TO/imdb", str(out.relative_to(ROOT))))
        about = training_record(out)
        known = about.read_text("utf-8") if resume and about.is_file() else None
        record = json.loads(known) if known else {"command": shown, "runs": []}
        record["runs"].append({"seconds": seconds, "machine": machine(), "commit": commit()})
        about.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    raise typer.Exit(status)


if __name__ == "__main__":
    app()
