"""The rows of the IMDB table: every way to classify, and which are compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.imdb.scorers import Scorer, nbsvm, nbsvm_of_all, tfidf
from guardkit.data.splits import DataSplits


@dataclass(frozen=True)
class Row:
    """One way to classify: fitted here in a minute (``fit``), a trained model under one of its
    scorers (``model``), other rows' log-odds joined (``of``), or one row's scores less those of
    another, which is a summand of it (``less``)."""

    title: str
    fit: Callable[[DataSplits], Scorer] | None = None
    model: str | None = None
    scorer: str | None = None
    of: tuple[str, ...] = ()
    less: tuple[str, str] | None = None
    without: str = "not run"


#: The network in both of its readings, without n-grams.
BOTH = ("mdlm-network", "mdlm-generative")
ROWS = {
    "random": Row("random"),
    "nbsvm-all": Row("NB-SVM bigrams, held-out reviews learnt too", nbsvm_of_all),
    "nbsvm": Row("NB-SVM bigrams", nbsvm),
    "tfidf": Row("TF-IDF logistic regression, words and pairs", tfidf),
    "gpt2-head": Row("GPT-2 from scratch, head", model="gpt2-head"),
    "gpt2-likelihood": Row("GPT-2 from scratch, one per class", model="gpt2-likelihood"),
    "gpt2-hub": Row("GPT-2 from the hub, head", model="gpt2-hub", without="not run: no hub"),
    "mdlm-naive-bayes": Row(
        "MDLM before training: naive Bayes", model="mdlm", scorer="naive_bayes"
    ),
    "mdlm-wide": Row("MDLM's wide term alone", model="mdlm", scorer="wide"),
    "mdlm-ngrams": Row("MDLM's n-grams alone", model="mdlm", scorer="ngrams"),
    "mdlm-network": Row("MDLM's network alone, one pass", less=("mdlm-one-pass", "mdlm-ngrams")),
    "mdlm-one-pass": Row("MDLM, one pass", model="mdlm", scorer="one_pass"),
    "mdlm-generative": Row("MDLM, generative", model="mdlm", scorer="generative"),
    "mdlm-both": Row("MDLM's network, both combined", of=BOTH),
    "mdlm-all": Row("MDLM, both combined", of=("mdlm-one-pass", "mdlm-generative")),
    "mdlm-pretrained": Row(
        "MDLM's network pretrained on all reviews' text, one pass",
        model="mdlm-pretrained",
        scorer="one_pass",
    ),
    "mdlm-pretrained-generative": Row(
        "MDLM's network pretrained, generative", model="mdlm-pretrained", scorer="generative"
    ),
    "mdlm-taught": Row(
        "MDLM's network taught by NB-SVM on unlabelled reviews, one pass",
        model="mdlm-taught",
        scorer="one_pass",
    ),
    "mdlm-taught-generative": Row(
        "MDLM's network taught by NB-SVM, generative", model="mdlm-taught", scorer="generative"
    ),
    "mdlm-gpt2-features": Row(
        "MDLM's network with GPT-2's features, one pass",
        model="mdlm-gpt2-features",
        scorer="one_pass",
    ),
    "stacked-gpt2": Row("stacked: MDLM's network and GPT-2", of=(*BOTH, "gpt2-head")),
    "stacked-nbsvm": Row("stacked: MDLM's network and NB-SVM", of=(*BOTH, "nbsvm")),
    "stacked-one-pass": Row("stacked: MDLM, one pass, and NB-SVM", of=("mdlm-one-pass", "nbsvm")),
    "stacked-all": Row(
        "stacked: all of them",
        of=(*BOTH, "mdlm-ngrams", "gpt2-head", "gpt2-likelihood", "nbsvm", "tfidf"),
    ),
}
#: Pairs of rows whose difference is reported, the first minus the second.
GAINS = (
    ("mdlm-network", "mdlm-wide"),
    ("mdlm-one-pass", "mdlm-network"),
    ("mdlm-one-pass", "mdlm-ngrams"),
    ("mdlm-generative", "mdlm-naive-bayes"),
    ("mdlm-network", "mdlm-generative"),
    ("mdlm-network", "gpt2-head"),
    ("mdlm-one-pass", "gpt2-head"),
    ("mdlm-generative", "gpt2-likelihood"),
    ("mdlm-one-pass", "nbsvm-all"),
    ("mdlm-one-pass", "nbsvm"),
    ("mdlm-pretrained", "mdlm-network"),
    ("mdlm-pretrained-generative", "mdlm-generative"),
    ("mdlm-taught", "mdlm-network"),
    ("mdlm-taught-generative", "mdlm-generative"),
    ("mdlm-taught", "nbsvm"),
    ("mdlm-gpt2-features", "mdlm-network"),
    ("mdlm-gpt2-features", "gpt2-head"),
)
