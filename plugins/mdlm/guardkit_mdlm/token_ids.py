"""What a text is after its tokenizer: an array of token ids, read in windows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from guardkit import windows

#: The tokens of one text or window.
TokenIds = npt.NDArray[np.int32]


def cut_windows(
    ids: Sequence[TokenIds], window: int, overlap: int
) -> tuple[list[TokenIds], npt.NDArray[np.int64]]:
    """Cut tokenised texts into windows; return them and text_W, whose each one is."""
    spans = [windows(len(i), window, overlap) for i in ids]
    pieces = [i[a:b] for i, of_text in zip(ids, spans, strict=True) for a, b in of_text]
    return pieces, np.repeat(np.arange(len(spans)), [len(of_text) for of_text in spans])
