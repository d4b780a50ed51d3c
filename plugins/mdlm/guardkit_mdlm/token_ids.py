"""What a text is after its tokenizer: an array of token ids."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

#: The tokens of one text or window.
TokenIds = npt.NDArray[np.int32]
