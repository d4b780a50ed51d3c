"""What the machine can do, and how fast functions run on it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from guardkit_mdlm.training.throughput import finish


def describe(device: torch.device) -> dict[str, str]:
    name = "CPU"
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    return {"device": name, "torch": torch.__version__}


def median_seconds(run: Callable[[], object], device: torch.device, repeats: int = 5) -> float:
    """Return the median time of ``run`` after one warm-up, the device's work included."""
    run()
    times = []
    for _ in range(repeats):
        finish(device)
        started = time.perf_counter()
        run()
        finish(device)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def peaks(device: torch.device, side: int) -> dict[str, float]:
    """Return the rate of a square bfloat16 product of random matrices, and of a copy on the
    device (bytes read and bytes written)."""
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    product = torch.empty_like(a)
    copies = 10

    def multiply() -> None:
        for _ in range(copies):
            torch.mm(a, b, out=product)

    flops_per_s = copies * 2 * side**3 / median_seconds(multiply, device)
    source = torch.randn(32 * side * side // 2, device=device)
    target = torch.empty_like(source)

    def copy() -> None:
        for _ in range(copies):
            target.copy_(source)

    bytes_per_s = copies * 2 * source.nbytes / median_seconds(copy, device)
    return {"product_flops_per_s": flops_per_s, "copy_bytes_per_s": bytes_per_s, "side": side}
