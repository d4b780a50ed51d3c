"""Chosen groups of texts evened out, so that each label has some on both sides of a split.

By their hashes groups fall on one side or the other, which leaves a rare label too thin or too
thick on one side by chance. Only then are groups of it moved, those first whose hash is nearest to
the border: every other split stays what its hashes made it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from guardkit.types import UNLABELLED, BoolArray, IntArray

#: f(groups that a label has) -> the fewest and the most of them that may be chosen.
Bounds = Callable[[int], tuple[int, int]]


def stratify(
    chosen_G: BoolArray,
    hash_G: npt.NDArray[np.uint64],
    group_N: IntArray,
    labels_N: IntArray,
    share: float,
    bounds: Bounds,
) -> None:
    """Change ``chosen_G`` so that as many groups of each label are chosen as ``bounds`` allow, as
    far as groups that hold several labels let it."""
    groups = {int(c): np.unique(group_N[labels_N == c]) for c in np.unique(labels_N)}
    groups.pop(UNLABELLED, None)
    fewest, most = ({c: bounds(len(own))[i] for c, own in groups.items()} for i in (0, 1))
    count = {c: int(chosen_G[own].sum()) for c, own in groups.items()}

    def move(c: int, *, choose: bool) -> None:
        own = groups[c][np.argsort(hash_G[groups[c]])]
        target = min(max(round(share * len(own)), fewest[c]), most[c])
        # the chosen are those with the smallest hashes: the nearest to the border come first
        for group in own[~chosen_G[own]] if choose else own[chosen_G[own]][::-1]:
            if count[c] == target:
                return
            held = [int(d) for d in np.unique(labels_N[group_N == group]) if d in groups]
            others = [d for d in held if d != c]
            if all(count[d] < most[d] if choose else count[d] > fewest[d] for d in others):
                chosen_G[group] = choose
                for d in held:
                    count[d] += 1 if choose else -1

    # the rarest first; again, for what a group's other labels did not allow the first time
    for c in 2 * sorted(groups, key=lambda c: len(groups[c])):
        if count[c] < fewest[c]:
            move(c, choose=True)
        elif count[c] > most[c]:
            move(c, choose=False)
