"""Files of the Hugging Face hub, or of its cache on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from guardkit import ArtefactError


def from_hub(name: str, patterns: Sequence[str]) -> Path:
    """Return a folder with the files of hub repository ``name`` that match ``patterns``.

    Raises ArtefactError where the name is none, or neither network nor cache has it.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=list(patterns)))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ArtefactError(
            f"{name}: no such folder or file here, and the hub did not give it. Without a network, "
            f"fetch {', '.join(patterns)} of it elsewhere and name the folder they are in. "
            f"({type(error).__name__}: {error})"
        ) from error
