"""Does the network compute on this device what it computes on a CPU in float32?

Run before anything takes minutes: a wrong kernel would cost them all.
"""

from __future__ import annotations

import json
import math
import shutil
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import torch
from guardkit_mdlm.config import MdlmConfig
from guardkit_mdlm.model import Denoiser
from guardkit_mdlm.scoring import load
from guardkit_mdlm.shape import NetworkShape
from guardkit_mdlm.training.corpus import Tokenised
from guardkit_mdlm.training.loop import LOG
from guardkit_mdlm.training.train import TokenisedData, fit, open_run
from guardkit_mdlm.weights.public_mdlm import LoadedDenoiser
from safetensors.torch import load_file

from benchmarks.gpu.pack import Packed

REFERENCE = Path(__file__).parents[2] / "tests" / "mdlm" / "reference"
#: Largest relative error, |ours - reference| / |reference|, of all numbers together.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 3e-2}
TINY = {
    "hidden_dim": 64, "n_blocks": 2, "n_heads": 2, "cond_dim": 16, "window_tokens": 64,
    "overlap_tokens": 16, "batch_tokens": 2048, "epochs": 1, "pretrain_epochs": 1,
    "embeddings": "random", "checkpoint_steps": 5,
}  # fmt: skip


class CheckFailed(Exception):
    """The device computes something else."""


def check(packed: Packed, device: torch.device, work: Path, *, compiled: bool) -> dict[str, Any]:
    """Return the errors found; raises CheckFailed where one is too large."""
    errors = {"public code, float32": _public_code(device)}
    ways = [(torch.float32, False), (torch.bfloat16, False)]
    for dtype, compile_it in [*ways, *([(torch.bfloat16, True)] if compiled else [])]:
        way = f"{str(dtype).removeprefix('torch.')}{', compiled' if compile_it else ''}"
        try:
            found = _classes(device, dtype, compile_it)
        except Exception:  # shown; what cannot be compiled is run as it is
            if not compile_it:
                raise
            traceback.print_exc()
            continue
        errors |= {f"{name}, {way}": error for name, error in found.items()}
    for name, error in errors.items():
        limit = TOLERANCE[torch.bfloat16 if "bfloat16" in name else torch.float32]
        if not error < limit:
            raise CheckFailed(f"{name}: relative error {error:.2g}, allowed {limit:.2g}")
    return {"relative_errors": errors, "rehearsal": _rehearse(packed, device, work)}


def _public_code(device: torch.device) -> float:
    golden = np.load(REFERENCE / "golden.npz")
    weights = load_file(REFERENCE / "model.safetensors")
    weights.pop("backbone.rotary_emb.inv_freq")  # a constant, computed where it is used
    net = Denoiser(NetworkShape(vocab_size=65, hidden_dim=48, cond_dim=16, n_blocks=2, n_heads=3))
    net.load_state_dict({k.removeprefix("backbone."): v for k, v in weights.items()})
    reference = LoadedDenoiser(net.to(device).eval())
    logits = reference.logits(torch.from_numpy(golden["xt"]).to(device))
    return _error(logits, torch.from_numpy(golden["logits"]))


@torch.no_grad()
def _classes(device: torch.device, dtype: torch.dtype, compiled: bool) -> dict[str, float]:
    """Compare label logits and masked tokens' log-probabilities, with padding and classes, of a
    random network."""
    shape = NetworkShape(
        vocab_size=1000, hidden_dim=128, cond_dim=32, n_blocks=3, n_heads=2, n_classes=2,
        tie_embeddings=True, class_bias=True, wide=True,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    net = Denoiser(shape).eval()
    for parameter in net.parameters():
        parameter.normal_(std=0.1, generator=generator)
    lengths_B = torch.tensor([200, 133, 64, 1])
    ids_BL = torch.randint(0, shape.mask_id, (4, 200), generator=generator)
    real_BL = torch.arange(200)[None] < lengths_B[:, None]
    mask_BL = real_BL & (torch.rand(ids_BL.shape, generator=generator) < 0.5)
    class_B = torch.tensor([0, 1, 2, 1])

    def run(net: Denoiser, where: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        ids, real, mask, classes = (t.to(where) for t in (ids_BL, real_BL, mask_BL, class_B))
        slot_BD, x_BLD = net(ids.masked_fill(mask, shape.mask_id), classes, real)
        class_N = classes[:, None].expand_as(ids)[mask]
        log_p_N = net.token_log_probs(x_BLD[mask], class_N, ids[mask])
        return net.label_logits(slot_BD, ids, real), log_p_N

    expected = run(net, torch.device("cpu"))
    net.to(device, dtype)
    if compiled:
        net.compile(dynamic=True)
    found = run(net, device)
    names = ("label logits", "token log-probabilities")
    return {n: _error(f, e) for n, f, e in zip(names, found, expected, strict=True)}


def _rehearse(packed: Packed, device: torch.device, work: Path) -> dict[str, float]:
    """Train a tiny network on a few texts, both stages, as the real one is; then score."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    train = packed.sets["train"]
    few = Tokenised(train.ids[:96], train.labels_N[:96])
    unlabelled = Tokenised(few.ids, np.full(len(few), -1))
    config = MdlmConfig.model_validate(TINY)
    data = TokenisedData(packed.labels, few, few, unlabelled)
    run = open_run(work, resume=False, device=device.type, progress=lambda *_: None)
    folder = fit(packed.tokenizer, data, config, run)
    steps = [json.loads(line) for line in (work / LOG).read_text("utf-8").splitlines()]
    if bad := [step for step in steps if not all(_finite(v) for v in step.values())]:
        raise CheckFailed(f"training: not finite: {bad[0]}")
    classifier = load(folder, device=device.type, backend="torch")
    for scorer in ("one_pass", "generative"):
        classifier.scorer = scorer
        logits_WC = classifier.window_logits(classifier.cut(few.ids[:8])[0])
        if not np.isfinite(logits_WC).all():
            raise CheckFailed(f"{scorer}: logits that are not finite")
    return {"steps": len(steps), "first_loss": steps[0]["loss"], "last_loss": steps[-1]["loss"]}


def _finite(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def _error(found: torch.Tensor, expected: torch.Tensor) -> float:
    found, expected = found.double().cpu(), expected.double()
    return float((found - expected).norm() / expected.norm())
