"""Which sets of injection texts choose, and which report: a text that chose reports nothing."""

from __future__ import annotations

#: Looked at often, while choosing: development data.
DEVELOPMENT = ("ood_deepset_test", "ood_safeguard", "ood_bipia", "ood_notinject")
#: Of injection-more; run once for a model that is released, and never for a choice.
REPORTING = (
    "eval_detector_fixtures",
    "eval_web_agents",
    "eval_system_prompts",
    "eval_soft_jailbreak_pair",
)
#: Recall on these, each counting the same, decides what ships: docs/results/network.md.
DECIDING = ("ood_safeguard", "ood_deepset_test", "ood_bipia")
