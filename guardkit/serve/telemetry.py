"""What ``/metrics`` tells, in Prometheus' format: counts and times, never a text nor anything that
a client chose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from guardkit import __version__
from guardkit.policy.micro_batching import BatchFacts
from guardkit.types import Row

if TYPE_CHECKING:
    from guardkit.model.loaded import Work
    from guardkit.serve.live import Judged, Live

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_TOKENS = tuple(2.0**n for n in range(4, 17))
_PROBABILITIES = (0.001, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999)
_ROWS = tuple(2.0**n for n in range(11))


class Telemetry:
    """The metrics of one server. ``judging`` and ``batch`` are for the thread that judges, the
    rest for the event loop."""

    def __init__(self, waiting: Callable[[], float]) -> None:
        # twice as many lines, and nobody reads them
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = own = CollectorRegistry()
        ProcessCollector(registry=own)  # memory, CPU time, open files
        labels = ("endpoint", "status")
        self.requests = Counter("guardkit_requests", "Requests answered", labels, registry=own)
        self.duration = Histogram(
            "guardkit_request_duration_seconds", "From the first byte of a request to its answer",
            ("endpoint",), buckets=_SECONDS, registry=own,
        )  # fmt: skip
        self.refused = Counter(
            "guardkit_refused", "Requests not judged, by why", ("reason",), registry=own
        )
        Gauge(
            "guardkit_queue_size", "Requests that wait for their turn", registry=own
        ).set_function(waiting)
        self.queue_seconds = Histogram(
            "guardkit_queue_seconds", "How long requests waited", buckets=_SECONDS, registry=own
        )
        self.batch_rows = Histogram(
            "guardkit_batch_rows", "Texts or conversations judged together", buckets=_ROWS,
            registry=own,
        )  # fmt: skip
        self.batch_tokens = Histogram(
            "guardkit_batch_tokens", "Tokens read by all models for one batch", buckets=_TOKENS,
            registry=own,
        )  # fmt: skip
        self.batch_seconds = Histogram(
            "guardkit_batch_seconds", "Time one batch took", buckets=_SECONDS, registry=own
        )
        self.member_seconds = Counter(
            "guardkit_member_seconds", "Time spent in each model, tokenising included", ("member",),
            registry=own,
        )  # fmt: skip
        self.member_texts = Counter(
            "guardkit_member_texts", "Texts that each model read", ("member",), registry=own
        )
        self.verdicts = Counter(
            "guardkit_verdicts", "Decisions of each category", ("category", "action"), registry=own
        )
        self.scores = Histogram(
            "guardkit_score", "Calibrated probabilities of each category", ("category",),
            buckets=_PROBABILITIES, registry=own,
        )  # fmt: skip
        self.actions = Counter("guardkit_actions", "Actions taken", ("action",), registry=own)
        self.escalations = Counter(
            "guardkit_escalations", "Texts that a stage of a cascade passed on",
            ("category", "member"), registry=own,
        )  # fmt: skip
        self.truncations = Counter(
            "guardkit_truncations", "Texts not read to their end", registry=own
        )
        self.errors = Counter(
            "guardkit_errors", "Texts that could not be judged, whatever was done then",
            registry=own,
        )  # fmt: skip
        self.shadow = Counter(
            "guardkit_shadow", "Decisions beside those of the shadow policy", ("live", "shadow"),
            registry=own,
        )  # fmt: skip
        self.reloads = Counter(
            "guardkit_reloads", "Reloads of the policy", ("outcome",), registry=own
        )
        self.policy = Info("guardkit_policy", "The policy that judges", registry=own)

    def serve(self, live: Live) -> None:
        """Say which policy judges from now on."""
        policy = live.router.policy
        self.policy.info(
            {"name": policy.name, "hash": policy.hash, "mode": policy.mode, "version": __version__}
        )

    def judging(self, live: Live) -> Callable[[Sequence[Row]], Sequence[Judged]]:
        """Return what judges rows by ``live`` and counts what it says."""

        def judge(rows: Sequence[Row]) -> Sequence[Judged]:
            before = _work(live)
            judged = live.judge(rows)
            tokens = 0
            for member, work in _work(live).items():
                done = work.since(before[member])
                tokens += done.tokens
                self.member_seconds.labels(member).inc(done.seconds)
                self.member_texts.labels(member).inc(done.texts)
            self.batch_tokens.observe(tokens)
            self._count(judged)
            return judged

        return judge

    def batch(self, facts: BatchFacts) -> None:
        """Count a batch."""
        self.batch_rows.observe(facts.rows)
        self.batch_seconds.observe(facts.seconds)
        for seconds in facts.waited_s:
            self.queue_seconds.observe(seconds)

    def exposition(self) -> bytes:
        return generate_latest(self.registry)

    def _count(self, judged: Sequence[Judged]) -> None:
        for decision, _ in judged:
            self.actions.labels(decision.action).inc()
            for name, category in decision.categories.items():
                self.verdicts.labels(name, category.action).inc()
                if category.score is not None:
                    self.scores.labels(name).observe(category.score)
            if decision.shadow is not None and "policy" in decision.shadow:
                self.shadow.labels(decision.action, decision.shadow["action"]).inc()
            for step in decision.route:
                if step.why.startswith("passed on"):
                    self.escalations.labels(step.category, step.member).inc()
            self.truncations.inc(decision.truncated)
            self.errors.inc(decision.error is not None)


def _work(live: Live) -> dict[str, Work]:
    """Return what each model has done so far, by the first member that has it."""
    found: dict[str, Work] = {}
    seen = set()
    for member, source in live.router.sources.items():
        if source not in seen:
            seen.add(source)
            found[member] = replace(live.router.model(member).work)
    return found
