"""The textbook derivations, line by line, one file a topic."""

import importlib

from handgrad.manual.derivation import Derivation

__all__ = ["TOPICS", "every"]

TOPICS = (
    "calculus",
    "neurons",
    "approximation",
    "forward",
    "backpropagation",
    "matrices",
    "worked",
    "flow",
    "multiclass",
    "cross_entropy",
    "descent",
    "convolution",
    "recurrent",
    "gates",
    "regularization",
    "optimisers",
)


def every() -> list[Derivation]:
    """All derivations, in the order of the inventory."""
    modules = (importlib.import_module(f"{__name__}.{topic}") for topic in TOPICS)
    return [derivation for module in modules for derivation in module.DERIVATIONS]
