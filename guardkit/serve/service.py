"""What the endpoints ask: rows judged in small batches, a text explained, the policy reloaded."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from guardkit.bounds import READING_COST
from guardkit.errors import GuardkitError, NotJudgedError
from guardkit.plugins import Plugins
from guardkit.policy.micro_batching import Batcher
from guardkit.serve.bodies import numbered
from guardkit.serve.evidence import explained
from guardkit.serve.live import Judged, Live, load_live
from guardkit.serve.log import said_of, server_log
from guardkit.serve.settings import Settings
from guardkit.serve.telemetry import Telemetry
from guardkit.types import Row

#: Nobody waits for an answer any more when the server closes; what hangs is left behind.
_CLOSE_S = 5.0


class Service:
    """A policy and the thread that judges by it, for the life of a server."""

    def __init__(self, settings: Settings, plugins: Plugins | None = None) -> None:
        """Load the policy. Raises what ``load_live`` raises."""
        self.settings = settings
        self._plugins = plugins
        self.live = load_live(settings, plugins)
        self.telemetry = Telemetry(lambda: self.batcher.waiting)
        self.telemetry.serve(self.live)
        self._judge = self.telemetry.judging(self.live)
        self.batcher: Batcher[Judged] = Batcher(
            self._judge, limits=settings.limits, seen=self.telemetry.batch
        )
        self._reloading = asyncio.Lock()

    async def judge(self, rows: Sequence[Row], request: str) -> list[Judged]:
        """Return what the policy says of each row. Raises NotJudgedError or its like, and then
        none of them was judged."""
        try:
            rows = numbered(rows, request)
            return await self.batcher.judge(rows, timeout_s=self.settings.timeout_s)
        except GuardkitError as error:
            raise self._counted(error) from error

    async def explain(self, row: Row, request: str) -> tuple[Judged, list[dict[str, Any]]]:
        """Return what the policy says of a row, and what each token adds to the verdicts of the
        members that were asked about it."""
        (row,) = numbered([row], request)
        judge = self._judge

        def in_its_turn() -> tuple[Judged, list[dict[str, Any]]]:
            (judged,) = judge([row])
            return judged, explained(judged, row)

        characters = 2 * sum(len(text) + READING_COST for text in row.texts)
        try:
            return await self.batcher.run(
                in_its_turn, characters=characters, timeout_s=self.settings.timeout_s
            )
        except GuardkitError as error:
            raise self._counted(error) from error

    async def reload(self) -> Live:
        """Read the policy and its models again, beside those that judge meanwhile.

        Raises what ``load_live`` raises; the old ones then go on judging.
        """
        async with self._reloading:
            try:
                live = await asyncio.to_thread(load_live, self.settings, self._plugins)
            except BaseException as error:
                self.telemetry.reloads.labels("refused").inc()
                server_log.error("reload refused, the old policy goes on: %s", said_of(error))
                raise
            self.live, self._judge = live, self.telemetry.judging(live)
            self.batcher.replace(self._judge)
            self.telemetry.serve(live)
            self.telemetry.reloads.labels("done").inc()
            server_log.info("policy %s is served now", live.router.hash[:12])
            return live

    @property
    def trouble(self) -> str | None:
        """Why nothing can be judged any more, None where all is well."""
        if not self.batcher.alive:
            return "the thread that judges has ended"
        if self.batcher.busy_s > self.settings.hung_s:
            return f"a batch has taken more than {self.settings.hung_s:g} s"
        return None

    async def close(self) -> None:
        """Judge what still waits and end."""
        await asyncio.to_thread(self.batcher.close, _CLOSE_S)

    def _counted(self, error: GuardkitError) -> GuardkitError:
        self.telemetry.refused.labels(type(error).__name__).inc()
        if type(error) is NotJudgedError or not isinstance(error, NotJudgedError):
            server_log.error("not judged: %s", said_of(error))
        return error
