"""The harness: asserts that a hand-written derivative and autodiff agree.

A name is looked up when it is first used, so that the command `handgrad` and the pytest plugin,
which live in this package too, start without importing JAX.
"""

import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from handgrad.compare.check import check, check_backward, check_gradient, examine
    from handgrad.compare.claims import examine_all, traceability
    from handgrad.compare.declare import backward_of, gradient_of, same_as
    from handgrad.compare.derivation import Derivation, DerivationMismatch, DerivationReport
    from handgrad.compare.errata import errata_table
    from handgrad.compare.optimizer import (
        OptimizerMismatch,
        check_optimizer,
        declare_optimizer,
        examine_optimizer,
    )
    from handgrad.compare.report import GradientMismatch, Report

__all__ = [
    "Derivation",
    "DerivationMismatch",
    "DerivationReport",
    "GradientMismatch",
    "OptimizerMismatch",
    "Report",
    "backward_of",
    "check",
    "check_backward",
    "check_gradient",
    "check_optimizer",
    "declare_optimizer",
    "errata_table",
    "examine",
    "examine_all",
    "examine_optimizer",
    "gradient_of",
    "same_as",
    "traceability",
]

_HOME = {
    "Derivation": "derivation",
    "DerivationMismatch": "derivation",
    "DerivationReport": "derivation",
    "GradientMismatch": "report",
    "OptimizerMismatch": "optimizer",
    "Report": "report",
    "backward_of": "declare",
    "check": "check",
    "check_backward": "check",
    "check_gradient": "check",
    "check_optimizer": "optimizer",
    "declare_optimizer": "optimizer",
    "errata_table": "errata",
    "examine": "check",
    "examine_all": "claims",
    "examine_optimizer": "optimizer",
    "gradient_of": "declare",
    "same_as": "declare",
    "traceability": "claims",
}


class _Package(types.ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
        setattr(self, name, value)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _HOME and isinstance(value, types.ModuleType):
            value = getattr(value, name)  # importing the module `check` must not hide `check`
        super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *__all__})


sys.modules[__name__].__class__ = _Package
