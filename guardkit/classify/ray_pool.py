"""Shards on a Ray cluster: the pool of ``process_pool``, its workers wherever Ray has room.

Ray places the workers and carries shards to them, nothing else: they write their parts into the
same folder, and the manifest there says what is done. So all machines need a file system in
common, under the same paths, and the same guardkit and models; each worker checks it before its
first shard.
"""

from __future__ import annotations

import os
import platform
import signal
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from threading import Thread, current_thread, main_thread
from typing import Any

from guardkit.classify.process_pool import DEPTH, THREADS, Answer, Pool, Remote, WorkerGone
from guardkit.classify.run_folder import probe
from guardkit.classify.shards import Shard
from guardkit.classify.worker import Facts, Worker, run_here
from guardkit.errors import GuardkitError, RunError, UsageError

#: Where the cluster is, as Ray's own tools have it. Unset: one is made on this machine.
ENV_ADDRESS = "RAY_ADDRESS"
#: A worker that has not come by then is worth a word.
PATIENCE_S = 30.0
#: How long a signal may wait.
_TICK_S = 0.5
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def require_ray() -> None:
    """Raise UsageError where Ray is not installed."""
    try:
        import ray  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f"--engine ray: Ray cannot be imported ({error}); pip install 'guardkit[ray]'"
        ) from error


def run_on_ray(
    shards: Iterator[Shard],
    worker: Worker,
    n: int,
    finished: Callable[[Shard, Facts], None],
) -> None:
    """Do the shards on ``n`` workers of the cluster that RAY_ADDRESS names, or of one on this
    machine. Raises UsageError where the cluster has no room for them or a worker does not see
    what we see."""
    with _connected(n):
        pool = _Actors(worker, n)
        try:
            pool.run(shards, finished)
        finally:
            pool.stop()


@contextmanager
def _connected(n: int) -> Iterator[None]:
    """Join the cluster, or make one, and leave it: what the caller joined stays joined."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anybody
    import ray

    if ray.is_initialized():
        yield
        return
    address = os.environ.get(ENV_ADDRESS) or "local"
    room = {"num_cpus": max(n, os.cpu_count() or 1)} if address == "local" else {}
    with _own_signals():
        try:
            ray.init(
                address=address,
                include_dashboard=False if address == "local" else None,
                log_to_driver=False,
                logging_level="ERROR",
                **room,
            )
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise RunError(
                f"Ray at {ENV_ADDRESS}={address}: {_first_line(error)}; a cluster that asks for a "
                "token needs RAY_AUTH_MODE=token here, too"
            ) from error
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep our handlers: Ray sets its own."""
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    try:
        yield
    finally:
        with suppress(ValueError):  # not the main thread, where nobody can have changed them
            for number, handler in before.items():
                signal.signal(number, handler)


@contextmanager
def _signals_later() -> Iterator[None]:
    """Let a signal wait until Ray has returned: where it raises inside of Ray's own Python, Ray
    takes it for a broken message, and goes on."""
    if current_thread() is not main_thread():  # where no handler runs
        yield
        return
    came: list[int] = []
    before = {n: signal.signal(n, lambda number, _: came.append(number)) for n in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for one in came:
            signal.raise_signal(one)


def cpus_each(nodes: Sequence[float], n: int) -> int:
    """Return how many CPUs each of ``n`` workers can have on machines with so many, as equal
    shares that never span machines; 0 where they do not fit.

    >>> cpus_each([8, 8], 3)
    4
    """
    shares = range(int(max(nodes, default=0)), 0, -1)
    return next((c for c in shares if sum(int(cpus) // c for cpus in nodes) >= n), 0)


class _Actor(Remote):
    """A handle on an actor, and what it was asked. The first answer says that it is ready."""

    def __init__(self, handle: Any, first: Any) -> None:
        super().__init__()
        self.handle = handle
        self.asked = {first}
        self.heard: Any = None  # the one that ray has an answer to
        self.is_ready = False

    @property
    def ready(self) -> bool:
        return self.is_ready

    def give(self, shard: Shard) -> None:
        with _signals_later():
            self.asked.add(self.handle.do.remote(shard))

    def answer(self) -> Answer:
        import ray

        self.asked.discard(self.heard)
        try:
            with _signals_later():
                answer: Answer = ray.get(self.heard)
        except ray.exceptions.RayTaskError as error:  # it raised what it should not
            raise WorkerGone(f"{type(error.cause).__name__}: {_first_line(error.cause)}") from error
        except ray.exceptions.RayError as error:
            raise WorkerGone(f"{type(error).__name__}: {_first_line(error)}") from error
        return answer


class _Actors(Pool[_Actor]):
    def __init__(self, worker: Worker, n: int) -> None:
        import ray

        cluster = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        cpus, gpus = ([node.get(kind, 0.0) for node in cluster] for kind in ("CPU", "GPU"))
        share = cpus_each(cpus, n)
        if not share:
            raise UsageError(
                f"--workers {n}: the Ray cluster has no room for them; each takes a CPU, and its "
                f"machines have {', '.join(f'{c:.0f}' for c in cpus)}"
            )
        options: dict[str, Any] = {"num_cpus": share}
        if worker.job.device == "cuda" or (worker.job.device == "auto" and sum(gpus)):
            options["num_gpus"] = min(1.0, sum(gpus) / n) or 1
        self._share = share
        self._actor = ray.remote(max_concurrency=DEPTH, **options)(_RayWorker)
        self._begun, self._told = time.monotonic(), False
        declared = worker.job.environment()  # what its models' output depends on
        ours = {name: value for name, value in os.environ.items()
                if name.startswith("GUARDKIT_") or name in declared}  # fmt: skip
        self._environment = {name: os.environ.get(name, str(share)) for name in THREADS} | ours
        self._settings = worker.job.settings()
        super().__init__(worker, n)

    def start(self) -> _Actor:
        handle = self._actor.remote(self.worker, self._environment, str(Path.cwd()))
        return _Actor(handle, handle.check.remote(self._settings))

    def heard(self) -> Sequence[_Actor]:
        import ray

        owners = {ref: actor for actor in self.workers for ref in actor.asked}
        found: list[Any] = []
        while not found:
            with _signals_later():
                found, _ = ray.wait([*owners], timeout=_TICK_S)
            self._waited()
        (ref,) = found
        actor = owners[ref]
        actor.heard = ref
        if not actor.ready and self._greeted(actor):
            return []
        return [actor]

    def _greeted(self, actor: _Actor) -> bool:
        """Take note of a worker that is ready, once what it wrote is seen here; return whether it
        is. Others have something to say."""
        import ray

        try:
            with _signals_later():
                kind, _, what = ray.get(actor.heard)
        except ray.exceptions.RayError:
            return False
        if kind != "ready":
            return False
        host, name = what
        seen = self.worker.folder / name
        if not seen.exists():
            raise UsageError(
                f"{seen.parent}: a Ray worker on {host} has another folder of this name; put "
                "--out on a file system that all machines of the cluster share"
            )
        seen.unlink(missing_ok=True)
        actor.asked.discard(actor.heard)
        actor.is_ready = True
        return True

    def _waited(self) -> None:
        """Say so, once, where no worker has come for long."""
        late = time.monotonic() - self._begun > PATIENCE_S
        if not late or self._told or any(actor.ready for actor in self.workers):
            return
        self._told = True
        warnings.warn(
            f"no Ray worker has started in {PATIENCE_S:.0f} s: the cluster has no {self._share} "
            "CPUs free, or cannot start Python; still waiting",
            RuntimeWarning,
            stacklevel=2,
        )

    def stop(self) -> None:
        import ray

        for actor in self.workers:
            ray.kill(actor.handle)


class _RayWorker:
    """The other side: a process of Ray's that does shards as any worker does."""

    def __init__(self, worker: Worker, environment: Mapping[str, str], folder: str) -> None:
        os.environ.update(environment)  # before anything that reads it is loaded
        self._worker, self._cwd = worker, folder
        self._shards: SimpleQueue[Shard] = SimpleQueue()
        self._answers: dict[int, Future[Answer]] = {}

    def check(self, settings: Mapping[str, Any]) -> Answer:
        """Say ("ready", 0, (host, a file in the run's folder)), or what is in the way."""
        host, folder = platform.node(), self._worker.folder
        try:
            os.chdir(self._cwd)  # relative paths mean here what they mean there
            name = probe(folder)
        except OSError as error:
            message = (
                f"{error.filename or folder}: a Ray worker on {host} cannot use it: "
                f"{error.strerror}; input, models and --out must be on a file system that all "
                "machines of the cluster share"
            )
            return "stop", UsageError.exit_code, message
        try:
            here = self._worker.job.settings()
        except GuardkitError as error:
            return "stop", error.exit_code, f"on {host}: {error}"
        if odd := [key for key in settings if settings[key] != here.get(key)]:
            (folder / name).unlink(missing_ok=True)
            key = odd[0]
            message = f"{key} is {here.get(key)} to a Ray worker on {host}, here {settings[key]}"
            return "stop", UsageError.exit_code, message
        Thread(target=self._work, daemon=True).start()
        return "ready", 0, (host, name)

    def do(self, shard: Shard) -> Answer:
        answer = self._answers[shard.index] = Future()
        self._shards.put(shard)
        return answer.result()

    def _work(self) -> None:
        def shards() -> Iterator[Shard]:
            while True:
                yield self._shards.get()

        def tell(kind: str, index: int, what: Any) -> None:
            self._answers.pop(index).set_result((kind, index, what))

        try:
            run_here(
                shards(),
                self._worker,
                lambda shard, facts: tell("done", shard.index, facts),
                lambda shard, reason: tell("failed", shard.index, reason),
            )
        except GuardkitError as error:  # wrong for the whole run
            for answer in self._answers.values():
                answer.set_result(("stop", error.exit_code, str(error)))
        except BaseException as error:  # a bug: for whoever waits
            for answer in self._answers.values():
                answer.set_exception(error)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or repr(error)).splitlines()[0]
