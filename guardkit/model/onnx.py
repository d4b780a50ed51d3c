"""Run an exported network: one call, numpy in, numpy out.

ONNX is the format. A file is read into memory and handed over as bytes, so that external data
(a path the file names) cannot be followed, and only ONNX Runtime's own operators are known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from guardkit.errors import ArtefactError, ConfigError

#: name -> input array; returns the first output.
Network = Callable[[Mapping[str, npt.NDArray[Any]]], npt.NDArray[np.float32]]
MODEL = "model.onnx"


def onnx_network(folder: Path, *, device: str) -> Network:
    """Load ``model.onnx`` of an artefact folder.

    ``device`` auto takes CUDA where ONNX Runtime offers it. Raises ArtefactError where there is
    no such file or it cannot be run, ConfigError where CUDA is asked for and not to be had.
    """
    path = folder / MODEL
    if not path.is_file():
        raise ArtefactError(
            f"{folder}: has no {MODEL}; `guardkit models export {folder} --out DIR` makes a model "
            "that has"
        )
    import onnxruntime

    cuda = "CUDAExecutionProvider"
    offered = onnxruntime.get_available_providers()
    # the GPU build offers CUDA on any machine; asked for "auto", only a real device counts
    wanted = device == "cuda" or (device == "auto" and cuda in offered and _has_gpu())
    if wanted and cuda not in offered:
        raise ConfigError(f"--device cuda: this ONNX Runtime offers {', '.join(offered)}")
    try:
        session = onnxruntime.InferenceSession(
            path.read_bytes(), providers=[cuda] if wanted else ["CPUExecutionProvider"]
        )
    except Exception as error:  # ONNX Runtime's exceptions share no base class
        raise ArtefactError(f"{path}: ONNX Runtime cannot run it: {error}") from error

    def run(inputs: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[np.float32]:
        outputs: list[npt.NDArray[np.float32]] = session.run(None, dict(inputs))
        return outputs[0]

    return run


def _has_gpu() -> bool:
    return any(Path("/dev").glob("nvidia[0-9]*"))
