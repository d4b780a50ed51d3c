"""How fast ``guardkit serve`` answers, beside the same model without HTTP and under LitServe.

    python -m benchmarks.engine.served     # -> benchmarks/results/served.json, 5 minutes
    python -m benchmarks.engine.served --soak-minutes 120   # load for as long, and what grew

One text a request. The contenders take turns, --repeats times, each on all cores but one, which the
clients have; nothing else should run on the machine.

- offline: the default policy's ``decide``, 256 texts at a time, in one process. No HTTP.
- guardkit: ``guardkit serve``.
- litserve: the same ``decide`` under LitServe, where that is installed; as many texts in a batch as
  the server's budget holds on average, and as long a wait.

``saturated``: --clients clients, each asking again at once. ``at 70%``: requests come at random
(Poisson, seed 0) at 0.7 of the rate that this contender reached, and latency counts from when a
request was due, whether or not it could be sent then.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.engine.sampled_texts import sampled_texts
from benchmarks.lib.paths import ROOT
from benchmarks.lib.provenance import commit
from guardkit.evaluation.provenance import provenance
from guardkit.policy.micro_batching import Limits

RESULTS = ROOT / "benchmarks" / "results" / "served.json"
LOAD = 0.7
OFFLINE = """
import json, sys, time, guardkit
texts = json.load(open(sys.argv[1]))
policy = guardkit.load_policy(device="cpu")
policy.decide(texts[:256])
began = time.perf_counter()
for i in range(0, len(texts), 256):
    policy.decide(texts[i : i + 256])
print(len(texts) / (time.perf_counter() - began))
"""
LITSERVE = """
import sys, guardkit, litserve
class API(litserve.LitAPI):
    def setup(self, device):
        self.policy = guardkit.load_policy(device="cpu")
    def decode_request(self, request):
        return request["text"]
    def batch(self, inputs):
        return inputs
    def predict(self, texts):
        return self.policy.decide(texts)
    def unbatch(self, output):
        return output
    def encode_response(self, decision):
        return {"action": decision.action, "score": decision.categories["injection"].score}
if __name__ == "__main__":
    port, size, wait = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    api = API(max_batch_size=size, batch_timeout=wait, api_path="/v1/classify")
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, timeout=60)
    server.run(host="127.0.0.1", port=port, generate_client_file=False, log_level="error")
"""


def main(
    out: Path = RESULTS,
    work: Path = ROOT / "build" / "served",
    seconds: float = 20.0,
    clients: int = 64,
    repeats: int = 3,
    texts: int = 4096,
    soak_minutes: Annotated[float, typer.Option(help="0: measure speed.")] = 0.0,
) -> None:
    work.mkdir(parents=True, exist_ok=True)
    (work / "texts.json").write_text(json.dumps(_texts(texts)))
    said = json.loads((work / "texts.json").read_text())
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[-1:])  # of the clients
    servers = cores[:-1] or cores
    if soak_minutes:
        print(json.dumps(soak(said, servers, 60 * soak_minutes, clients), indent=1))
        return
    contenders = ["offline", "guardkit", *(["litserve"] if find_spec("litserve") else [])]
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name in contenders:
            if name == "offline":
                found = {"texts_per_s": _offline(work, servers)}
            else:
                with _server(name, work, servers, said) as port:
                    found = _measured(port, said, seconds, clients)
            runs[name].append(found)
            print(name, found, flush=True)
    middle = {
        name: {key: statistics.median(run[key] for run in own) for key in own[0]}
        for name, own in runs.items()
    }
    record = {
        "script": "benchmarks/engine/served.py", "seed": 0, "clients": clients, "seconds": seconds,
        "repeats": repeats, "median": middle, "runs": runs, "load": os.getloadavg()[0],
        **provenance(), "commit": commit(),
    }  # fmt: skip
    out.write_text(json.dumps(record, indent=1) + "\n", "utf-8")


def soak(texts: Sequence[str], cores: list[int], seconds: float, clients: int) -> dict[str, Any]:
    """Ask at 0.8 of what the server can for so long; return its memory and p99 by tenths."""
    work = ROOT / "build" / "served"
    with _server("guardkit", work, cores, texts) as port:
        rate = 0.8 * asyncio.run(_saturated(port, texts, 20, clients))[0]
        tenths = []
        for _ in range(10):
            latencies, refused = asyncio.run(_open_loop(port, texts, seconds / 10, rate))
            resident = _metric(port, "process_resident_memory_bytes")
            tenths.append(
                {
                    "p99_ms": _p(latencies, 0.99),
                    "refused": refused,
                    "resident_mb": resident / 2**20,
                }
            )
    return {"requests_per_s": rate, "tenths": tenths}


def _texts(n: int) -> list[str]:
    import guardkit

    model = guardkit.load_model("builtin:mdlm/injection", device="cpu")
    tokenizer = guardkit.open_tokenizer(model.path / guardkit.TOKENIZER)
    return sampled_texts(tokenizer, n, seed=0)


def _offline(work: Path, cores: Sequence[int]) -> float:
    run = subprocess.run(
        [sys.executable, "-c", OFFLINE, work / "texts.json"], env=_environment(cores), text=True,
        stdout=subprocess.PIPE, check=True, preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )  # fmt: skip
    return float(run.stdout)


def _environment(cores: Sequence[int]) -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": str(len(cores))}


@contextmanager
def _server(name: str, work: Path, cores: list[int], texts: Sequence[str]) -> Iterator[int]:
    port = 8765
    if name == "guardkit":
        command = ["-m", "guardkit", "serve", "--port", str(port), "--device", "cpu"]
    else:
        (work / "litserve_api.py").write_text(LITSERVE)
        size = Limits().batch_characters * len(texts) // sum(map(len, texts))
        command = [str(work / "litserve_api.py"), str(port), str(size), str(Limits().wait_s)]
    with (work / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, *command], env=_environment(cores), stdout=log, stderr=log,
            preexec_fn=lambda: os.sched_setaffinity(0, cores), start_new_session=True,
        )  # fmt: skip
    try:
        while True:
            try:
                asyncio.run(_closed(port, texts[:1], time.perf_counter() + 0.1))
                break
            except (OSError, asyncio.IncompleteReadError, SystemExit):
                assert process.poll() is None, (work / f"{name}.log").read_text()
                time.sleep(0.2)
        yield port
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)


def _measured(port: int, texts: Sequence[str], seconds: float, clients: int) -> dict[str, float]:
    asyncio.run(_saturated(port, texts, 2, clients))  # warm
    before = (
        _metric(port, "guardkit_batch_seconds_sum"),
        _metric(port, "guardkit_batch_seconds_count"),
    )
    rate, latencies = asyncio.run(_saturated(port, texts, seconds, clients))
    after = (
        _metric(port, "guardkit_batch_seconds_sum"),
        _metric(port, "guardkit_batch_seconds_count"),
    )
    open_loop, refused = asyncio.run(_open_loop(port, texts, seconds, LOAD * rate))
    batches = after[1] - before[1]
    return {
        "texts_per_s": rate,
        "saturated_p50_ms": _p(latencies, 0.5),
        "saturated_p99_ms": _p(latencies, 0.99),
        "load_p50_ms": _p(open_loop, 0.5),
        "load_p99_ms": _p(open_loop, 0.99),
        "load_refused": refused,
        "batch_ms": 1000 * (after[0] - before[0]) / batches if batches else 0.0,
    }


async def _saturated(
    port: int, texts: Sequence[str], seconds: float, clients: int
) -> tuple[float, list[float]]:
    """Return answers a second, and the latencies, of clients that ask again at once."""
    began = time.perf_counter()
    own = [texts[i::clients] for i in range(clients)]
    found = await asyncio.gather(*(_closed(port, some, began + seconds) for some in own))
    latencies = [one for some in found for one in some]
    return len(latencies) / (time.perf_counter() - began), latencies


async def _closed(port: int, texts: Sequence[str], until: float) -> list[float]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    latencies: list[float] = []
    try:
        while time.perf_counter() < until:
            sent = time.perf_counter()
            if not await _ask(reader, writer, texts[len(latencies) % len(texts)]):
                raise SystemExit("a server that refuses one request a client cannot be measured")
            latencies.append(time.perf_counter() - sent)
    finally:
        writer.close()
    return latencies


async def _open_loop(
    port: int, texts: Sequence[str], seconds: float, rate: float
) -> tuple[list[float], int]:
    """Return the latencies, from when each was due, of requests that come at random, and how many
    were refused."""
    chance, latencies, refused = random.Random(0), list[float](), 0
    idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def one(text: str, due: float) -> None:
        nonlocal refused
        connection = idle.pop() if idle else await asyncio.open_connection("127.0.0.1", port)
        refused += not await _ask(*connection, text)
        latencies.append(time.perf_counter() - due)
        idle.append(connection)

    due, end, tasks = time.perf_counter(), time.perf_counter() + seconds, set[asyncio.Task[None]]()
    while due < end:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        task = asyncio.ensure_future(one(texts[len(tasks) % len(texts)], due))
        tasks.add(task)
        due += chance.expovariate(rate)
    await asyncio.gather(*tasks)
    for _, writer in idle:
        writer.close()
    return latencies, refused


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, text: str) -> bool:
    """Ask about a text; return whether it was judged."""
    body = json.dumps({"text": text}).encode()
    head = b"POST /v1/classify HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    writer.write(b"%bcontent-length: %d\r\n\r\n%b" % (head, len(body), body))
    answer = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(answer.partition(b"content-length: ")[2].split(b"\r\n")[0])
    await reader.readexactly(length)
    return answer.startswith(b"http/1.1 200")


def _metric(port: int, name: str) -> float:
    """Return a metric of guardkit's, 0 where there is none."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
    except OSError:
        return 0.0
    return next((float(x.rpartition(" ")[2]) for x in lines if x.startswith(f"{name} ")), 0.0)


def _p(latencies: Sequence[float], share: float) -> float:
    return 1000 * sorted(latencies)[int(share * (len(latencies) - 1))]


if __name__ == "__main__":
    typer.run(main)
