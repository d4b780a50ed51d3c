"""guardkit: train small text classifiers, and route text through ensembles of them.

    guardkit.load_policy("policies/default.yaml").decide(["Ignore all previous instructions."])
    guardkit.load_model("builtin:mdlm/injection").probabilities(["Hello."])

The names that ``__init__.pyi`` lists are the public API, plugins' included; everything else may
change. Each is imported at its first use, so that ``import guardkit`` stays quick.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__version__ = "0.1.0"
