"""A batch of texts under a policy: each model reads a text at most once, whoever asks.

Shape letters: N texts of the batch, C labels; ``index_N`` says which of the texts are meant.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from guardkit.bounds import MAX_CHARACTERS
from guardkit.log_odds import sigmoid_N
from guardkit.model.asking import Shared
from guardkit.model.loaded import Model
from guardkit.model.scorers import Source
from guardkit.policy.schema import Category, OnMemberDown
from guardkit.rounding import six_digits, six_digits_N
from guardkit.text.canonical import canonical
from guardkit.types import BoolArray, Combiner, IntArray, Role, RouteStep

_Float64 = npt.NDArray[np.float64]


class PolicyBatch:
    """The texts of one batch, what the policy's models say of them, and what was found out.

    ``errors`` says by position why a text could not be judged. ``routes`` lists for each text
    the nodes that gave it a value, children before their parent, and what followed.
    ``novelty_of`` names the models whose novelty some node will ask for: they compute it together
    with their scores, so that they read no text twice. With ``rounded``, scores and thresholds
    are reported with six digits; no decision depends on the rounding. ``beside`` is another
    policy's batch of the same texts: the two share their models' scores. ``roles`` says whose words
    each text is; without them every category judges every text. ``max_characters`` is how much of
    a text, with its other readings, a model is given. ``on_member_down`` says what follows where a
    member is down; ``down`` names for each text the members that were.
    """

    def __init__(
        self,
        texts: Sequence[str],
        model: Callable[[str], Model],
        combiners: Mapping[str, Combiner],
        novelty_of: Container[Source] = (),
        *,
        beside: PolicyBatch | None = None,
        rounded: bool = False,
        roles: Sequence[Role | None] | None = None,
        max_characters: int = MAX_CHARACTERS,
        on_member_down: Mapping[str, OnMemberDown] | None = None,
    ) -> None:
        self.texts = texts
        self.roles = roles
        self.max_characters = max_characters
        self.rounded = rounded
        self.model = model
        self.combiners = combiners
        self.novelty_of = novelty_of
        self.errors: dict[int, str] = {}
        self.routes: list[list[RouteStep]] = [[] for _ in texts]
        self.on_member_down = on_member_down or {}
        self.down: dict[int, list[str]] = {}
        self.truncated_N = np.zeros(len(texts), bool)
        # a model's scores, by how much of a text it was given
        self._scores: dict[tuple[Source, int], ModelScores] = (
            {} if beside is None else beside._scores
        )
        self._shared: Shared = {} if beside is None else beside._shared
        self._canonical: dict[int, str] = {}

    def judged_by(self, category: Category) -> IntArray:
        """Return which of the texts ``category`` judges."""
        if self.roles is None:
            return np.arange(len(self.texts))
        return np.flatnonzero([category.judges(role) for role in self.roles])

    def raw(self, i: int) -> str:
        return self.texts[i]

    def canonical(self, i: int) -> str:
        """Return the canonical form of text ``i``, computed once for all patterns."""
        if i not in self._canonical:
            self._canonical[i] = canonical(self.texts[i])
        return self._canonical[i]

    def add_error(self, i: int, why: str) -> None:
        """Record why text ``i`` could not be judged, beside earlier reasons."""
        self.errors[i] = f"{self.errors[i]}; {why}" if i in self.errors else why

    def note_down(self, i: int, member: str) -> None:
        """Record that ``member`` was down when it was asked about text ``i``."""
        if member not in (own := self.down.setdefault(i, [])):
            own.append(member)

    def scores(self, model: Model, index_N: IntArray, *, novelty: bool = False) -> ModelScores:
        """Return ``model``'s scores; those of the texts at ``index_N`` are in it.

        Each text is scored at most once, however many members, nodes and categories ask.
        """
        key = model.source, self.max_characters
        if key not in self._scores:
            self._scores[key] = ModelScores(len(self.texts), len(model.labels), model.hash)
        scores = self._scores[key]
        scores.ask(
            model,
            self.texts,
            index_N,
            novelty=novelty,
            novelty_too=model.source in self.novelty_of,
            shared=self._shared,
            max_characters=self.max_characters,
        )
        self.truncated_N[index_N] |= scores.truncated_N[index_N]
        return scores

    def read_by(self, sources: Mapping[str, Source]) -> list[Mapping[str, str]]:
        """Return for each text the members that were asked about it, each with its model's short
        hash; ``sources`` are the members' models."""
        keys = {name: (source, self.max_characters) for name, source in sources.items()}
        asked = {name: self._scores[key] for name, key in keys.items() if key in self._scores}
        if not asked:
            return [{}] * len(self.texts)
        asked_NM = np.stack([s.done_N | s.novelty_done_N for s in asked.values()], axis=1)
        hashes = [(name, scores.hash[:12]) for name, scores in asked.items()]
        found: dict[bytes, Mapping[str, str]] = {}
        result = []
        for row_M in asked_NM:
            if (key := row_M.tobytes()) not in found:
                found[key] = dict(h for h, own in zip(hashes, row_M, strict=True) if own)
            result.append(found[key])
        return result

    def novelty_p(self, model: Model, index_N: IntArray) -> tuple[_Float64, Mapping[int, str]]:
        """Return ``model``'s novelty p-values of the texts at ``index_N``, and why some of them
        are not known (NaN), by position in ``index_N``."""
        scores = self.scores(model, index_N, novelty=True)
        p_N = scores.novelty_p_N[index_N]
        unknown = np.isnan(p_N).nonzero()[0].tolist()
        return p_N, {i: scores.novelty_reasons[int(index_N[i])] for i in unknown}

    def probability(self, p: float) -> float:
        """Return ``p`` as it is reported."""
        return six_digits(p) if self.rounded else p

    def probabilities(self, log_odds_N: _Float64, known_N: BoolArray) -> list[float | None]:
        """Return the probabilities as they are reported, None where not known or NaN."""
        known_N = known_N & ~np.isnan(log_odds_N)
        p_N = sigmoid_N(np.where(known_N, log_odds_N, 0.0))
        reported: list[float | None] = (six_digits_N(p_N) if self.rounded else p_N).tolist()
        for i in (~known_N).nonzero()[0].tolist():
            reported[i] = None
        return reported


class ModelScores:
    """What one model says of the whole batch, as far as it was asked: raw logits, the tokens they
    were read from, and novelty. NaN where it failed, with the reason by position."""

    def __init__(self, n: int, n_labels: int, hash: str) -> None:
        self.hash = hash  # of the model
        self.logits_NC = np.full((n, n_labels), np.nan, np.float32)
        self.tokens_N = np.zeros(n, np.int64)
        self.done_N = np.zeros(n, bool)
        self.truncated_N = np.zeros(n, bool)
        self.down_N = np.zeros(n, bool)  # failed, and not for what the text is
        self.reasons: dict[int, str] = {}
        self.novelty_p_N = np.full(n, np.nan)
        self.novelty_done_N = np.zeros(n, bool)
        self.novelty_reasons: dict[int, str] = {}

    def ask(
        self,
        model: Model,
        texts: Sequence[str],
        index_N: IntArray,
        *,
        novelty: bool,
        novelty_too: bool,
        shared: Shared,
        max_characters: int,
    ) -> None:
        """Have ``model`` score those of the batch's ``texts`` at ``index_N`` that it has not.

        ``novelty`` is needed now; with ``novelty_too`` it is computed beside the scores because
        some node will need it later. ``shared`` is where the models of one batch leave what
        others may use.
        """
        new_N = index_N[~(self.novelty_done_N if novelty else self.done_N)[index_N]]
        if not new_N.size:
            return
        novelty = novelty or novelty_too
        own = [texts[i] for i in new_N.tolist()]
        scored = model.score(own, novelty=novelty, shared=shared, max_characters=max_characters)
        self.logits_NC[new_N] = scored.logits_NC
        self.tokens_N[new_N] = scored.tokens_N
        self.done_N[new_N] = True
        self.reasons |= {int(new_N[i]): why for i, why in scored.errors.items()}
        self.truncated_N[new_N] = scored.truncated_N
        self.down_N[new_N[list(scored.down)]] = True
        if novelty:
            self.novelty_p_N[new_N] = model.novelty_p_values(scored)
            self.novelty_done_N[new_N] = True
            reasons = scored.novelty_errors.items()
            self.novelty_reasons |= {int(new_N[i]): why for i, why in reasons}
