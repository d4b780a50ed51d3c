"""Which scorers an artefact offers, and each of them loaded; torch only where one needs it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from guardkit import ArtefactConfig, Classifier, read_config
from guardkit_mdlm.ngrams_scorer import NGRAMS_SCORER, NgramsClassifier
from guardkit_mdlm.record import NetworkRecord
from guardkit_mdlm.text_ngrams import load_ngrams


def scorers_of(folder: Path) -> tuple[str, ...]:
    """Return what the artefact ``folder`` can be scored by: its own scorer, then the others from
    the cheapest on. A network that was not trained for one does not offer it."""
    config = read_config(folder)
    record = NetworkRecord.of(folder, config)
    offered: list[str] = [record.scorer]
    if record.shape.ngrams or record.text_ngrams is not None:
        offered.append(NGRAMS_SCORER)
    if record.separate is None and _learnt(config, "label_weight"):
        offered.append("one_pass")
    if record.separate is not None or _learnt(config, "text_weight", "visible_share"):
        offered.append("generative")
    return tuple(dict.fromkeys(offered))


def load_scorer(
    path: Path, scorer: str, *, device: str, backend: str, beside: Sequence[Classifier]
) -> Classifier:
    """Load an artefact folder by one of its scorers; see ``HasScorers.load_scorer``."""
    held = (getattr(classifier, "ngrams", None) for classifier in beside)
    ngrams = next((own for own in held if own is not None), None)
    if scorer == NGRAMS_SCORER:
        config = read_config(path)
        record = NetworkRecord.of(path, config)
        ngrams = ngrams or load_ngrams(path, record)
        assert ngrams is not None, "offered only where there are some"
        return NgramsClassifier(path, config, record, ngrams)
    from guardkit_mdlm.scoring import MdlmClassifier, load

    for classifier in beside:
        if isinstance(classifier, MdlmClassifier):
            return classifier.by(scorer)
    return load(path, device=device, backend=backend, scorer=scorer, ngrams=ngrams)


def _learnt(config: ArtefactConfig, *weights: str) -> bool:
    """Return whether parts of the training's loss had any weight; so it is taken to be where the
    record does not say."""
    options = config.training.get("options", {})
    return all(options.get(name, 1) > 0 for name in weights)
