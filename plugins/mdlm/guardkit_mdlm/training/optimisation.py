"""Float32 master weights behind a network that computes in bfloat16, and their optimisers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from guardkit import pick_dtype
from guardkit_mdlm.class_network import ClassNetwork
from guardkit_mdlm.config import MdlmConfig
from guardkit_mdlm.training.muon import Muon
from guardkit_mdlm.training.parallel import Workers


class Optimiser:
    """Muon for hidden matrices (Jordan 2024), AdamW for the rest, and an average of weights.

    The network holds ``dtype`` weights; the float32 masters live here. On a CPU this is
    several times faster than autocast, which casts the weights anew in every operation.
    """

    def __init__(self, net: ClassNetwork, config: MdlmConfig, total_steps: int) -> None:
        self.net = net
        self.config = config
        self.total_steps = total_steps
        self.masters = {
            name: p.detach().float().clone().requires_grad_()
            for name, p in net.named_parameters() if p.requires_grad
        }  # fmt: skip
        self.average = {name: p.detach().clone() for name, p in self.masters.items()}
        trunks = net.trunks()
        body = {id(p) for trunk in trunks for p in trunk.parameters()}
        matrices = {id(p) for trunk in trunks for p in trunk.hidden_matrices()}
        names = {n: id(p) for n, p in net.named_parameters()}
        hidden = [n for n in self.masters if names[n] in matrices]
        if config.optimizer == "adamw":
            hidden = []
        rest = [n for n in self.masters if n not in hidden]
        groups: dict[tuple[float, float], list[Tensor]] = {}
        for name in sorted(rest, key=lambda n: self.masters[n].ndim != 2):  # matrices first
            rate = config.lr
            if config.lr_body is not None and names[name] in body:
                rate = config.lr_body
            decay = config.weight_decay if self.masters[name].ndim == 2 else 0.0
            groups.setdefault((rate, decay), []).append(self.masters[name])
        self.optimisers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(
                [{"params": p, "lr": r, "weight_decay": d} for (r, d), p in groups.items()],
                betas=(0.9, 0.98),
                eps=1e-10,
                fused=True if next(net.parameters()).device.type == "cuda" else None,
            )
        ]
        if hidden:
            self.optimisers.append(
                Muon(
                    [self.masters[n] for n in hidden],
                    lr=config.lr_muon,
                    momentum=0.95,
                    weight_decay=config.weight_decay,
                    dtype=pick_dtype("auto", next(net.parameters()).device),
                )
            )
        self.base_rates = [g["lr"] for o in self.optimisers for g in o.param_groups]

    def step(self, step: int, workers: Workers) -> Tensor:
        """Apply all processes' gradients as step number ``step``; return their norm, a scalar."""
        learning = [
            (self.masters[n], p) for n, p in self.net.named_parameters() if p.grad is not None
        ]
        grads = [torch.empty_like(master) for master, _ in learning]
        # one kernel for all, here and below: a GPU would wait for hundreds to be launched
        torch._foreach_copy_(grads, [p.grad for _, p in learning if p.grad is not None])
        for (master, parameter), grad in zip(learning, grads, strict=True):
            master.grad, parameter.grad = grad, None
        workers.sum_gradients(self.masters)
        norm = nn.utils.clip_grad_norm_(self.masters.values(), self.config.grad_clip)
        factor = _rate(step, self.total_steps, self.config)
        groups = [g for o in self.optimisers for g in o.param_groups]
        for group, rate in zip(groups, self.base_rates, strict=True):
            group["lr"] = rate * factor
        for optimiser in self.optimisers:
            optimiser.step()
            optimiser.zero_grad()
        decay = min(self.config.ema, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(
                list(self.average.values()), list(self.masters.values()), 1 - decay
            )
        self._to_net(self.masters)
        return norm

    def averaged(self) -> None:
        """Put the averaged weights into the network."""
        self._to_net(self.average)

    def current(self) -> None:
        """Put the weights being trained back into the network."""
        self._to_net(self.masters)

    def state(self) -> dict[str, Tensor]:
        """Return everything a resumed run needs, as tensors by name."""
        tensors = {f"master.{n}": p.detach() for n, p in self.masters.items()}
        tensors |= {f"average.{n}": p for n, p in self.average.items()}
        for i, optimiser in enumerate(self.optimisers):
            for index, values in optimiser.state_dict()["state"].items():
                for key, value in values.items():
                    tensors[f"optimiser.{i}.{index}.{key}"] = torch.as_tensor(value)
        return tensors

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take up what ``state`` returned."""
        with torch.no_grad():
            for name in self.masters:
                self.masters[name].copy_(tensors[f"master.{name}"])
                self.average[name].copy_(tensors[f"average.{name}"])
        for i, optimiser in enumerate(self.optimisers):
            state: dict[int, dict[str, Any]] = {}
            for name, value in tensors.items():
                if name.startswith(f"optimiser.{i}."):
                    _, _, index, key = name.split(".", 3)
                    state.setdefault(int(index), {})[key] = value
            groups = optimiser.state_dict()["param_groups"]
            optimiser.load_state_dict({"state": state, "param_groups": groups})
        self.current()

    def _to_net(self, weights: Mapping[str, Tensor]) -> None:
        own = [(p, weights[n]) for n, p in self.net.named_parameters() if n in weights]
        with torch.no_grad():
            torch._foreach_copy_([p for p, _ in own], [w for _, w in own])


def _rate(step: int, total: int, config: MdlmConfig) -> float:
    """Linear rise over the first ``warmup`` share, then a cosine to zero or no change."""
    rise = max(1, round(config.warmup * total))
    if step < rise:
        return (step + 1) / rise
    if config.schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rise) / max(1, total - rise))))
