"""Is a derivation right? `check`, `check_backward`, `check_gradient`, and `examine`."""

import dataclasses
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax

from handgrad.compare import devices, fuzz, reproduce
from handgrad.compare.exact import available
from handgrad.compare.examination import Examination
from handgrad.compare.problem import Kind, Problem, Trouble, name_of, summary, user_traceback
from handgrad.compare.report import GradientMismatch, Report, Search


def check(
    candidate: Callable, reference: Callable, *args: Any, seed: int = 0,
    argnums: Sequence[int] | None = None, name: str | None = None, digits: int | None = None,
    search: bool = False,
) -> Report:  # fmt: skip
    """Verify a differentiable function (a `custom_vjp`, a kernel) against a plain one.

    candidate, reference: callables of `*args`; both forward values and gradients are compared.
    args: sample inputs, arrays or trees of arrays, at which the derivation is verified.
    seed: of the random cotangents and neighbouring samples; the same seed, the same report.
    argnums: the arguments to be differentiated (default: all that hold floats).
    digits: evaluate both derivatives once more in multiple precision, with so many decimal digits
    (50, say; small inputs only), and let that decide between a wrong derivation and a right one
    whose code is inaccurate. Needs mpmath: `pip install 'handgrad[exact]'`.
    search: try some hundred other inputs as well: other sizes, scales, special values, ties. The
    report is then on the first that fails, made as small as possible, with Python to reproduce it.

    Returns a `Report`; raises `GradientMismatch` if the derivation is wrong, and what a function
    itself raised.
    """
    __tracebackhide__ = True
    options: dict[str, Any] = dict(
        seed=seed, argnums=argnums, name=name, digits=digits, search=search
    )
    return _raise(examine(candidate, reference, *args, **options))


def check_backward(
    backward: Callable, reference: Callable, *args: Any, seed: int = 0,
    argnums: Sequence[int] | None = None, name: str | None = None, digits: int | None = None,
    search: bool = False,
) -> Report:  # fmt: skip
    """Verify a hand-derived `backward(*args, dy)`, as on paper, against autodiff of `reference`.

    It returns a tuple with one cotangent for each argument in order (`None` for integers, or
    without these), of the argument's shape; dy has the shape of the reference's output. Else as
    `check`.
    """
    __tracebackhide__ = True
    options: dict[str, Any] = dict(
        seed=seed, argnums=argnums, name=name, digits=digits, search=search
    )
    return _raise(examine(backward, reference, *args, kind="backward", **options))


def check_gradient(
    gradient: Callable, loss: Callable, *args: Any, seed: int = 0,
    argnums: Sequence[int] | None = None, name: str | None = None, digits: int | None = None,
    search: bool = False,
) -> Report:  # fmt: skip
    """Verify a hand-derived `gradient(*args)` of a scalar `loss(*args)`.

    It returns a tuple with one gradient for each argument or, like `jax.grad`, the gradient
    with respect to the first argument alone. Else as `check`.
    """
    __tracebackhide__ = True
    options: dict[str, Any] = dict(
        seed=seed, argnums=argnums, name=name, digits=digits, search=search
    )
    return _raise(examine(gradient, loss, *args, kind="gradient", **options))


def examine(
    candidate: Callable, reference: Callable, *args: Any, kind: Kind = "function", seed: int = 0,
    argnums: Sequence[int] | None = None, name: str | None = None, digits: int | None = None,
    platform: str | None = None, search: bool = False,
) -> Report:  # fmt: skip
    """The same without raising: whatever is wrong stands in the `Report`.

    kind: what the candidate is, "function" (see `check`), "backward" (see `check_backward`) or
    "gradient" (see `check_gradient`).
    platform: "cpu", "gpu" or "tpu", on which the code runs whose accuracy is measured: with matrix
    products at the highest precision, which decides, and at the platform's default beside it. The
    truth is float64 on the CPU in any case. Default: the user's device and precision.
    """
    if kind not in ("function", "backward", "gradient"):
        raise ValueError(f"kind is {kind!r}; it must be 'function', 'backward' or 'gradient'")
    if not hasattr(seed, "__index__") or seed < 0:
        raise ValueError(f"seed is {seed!r}; it must be a whole number from 0 on")
    digits = None if digits is None else available(digits)
    report = Report(name or name_of(candidate), kind, seed)
    report = _examined(
        report, candidate, reference, args, kind, argnums, digits=digits, platform=platform
    )
    if not search or not report.ok:
        return report
    return searched(report, candidate, reference, args, kind=kind, argnums=argnums, digits=digits)


def _examined(
    report: Report, candidate: Callable, reference: Callable, args: tuple, kind: Kind,
    argnums: Sequence[int] | None, *, digits: int | None, platform: str | None = None,
    beside: tuple | None = None,
) -> Report:  # fmt: skip
    """beside: arguments at which the derivation is right, where these were found by a search."""
    device = None if platform is None else devices.first(platform)
    others = None if beside is None else jax.tree.leaves(beside)
    try:
        with warnings.catch_warnings(), devices.on(device):
            warnings.simplefilter("ignore")
            problem = Problem(candidate, reference, args, kind, argnums)
            return Examination(problem, report, digits, platform is not None, others).run()
    except Trouble as trouble:
        return _stopped(report, trouble)
    except jax.errors.JaxRuntimeError as error:
        *_, last = str(error).strip().splitlines()
        if "Incorrect output dtype" not in last:
            raise
        return _stopped(report, Trouble(_CALLED_BACK.format(last)))


_CALLED_BACK = (
    "what JAX calls back returned another dtype than was declared for it, given float64, in which "
    "derivatives are evaluated ({}); return the declared dtype, or declare the argument's, x.dtype"
)


def searched(
    report: Report, candidate: Callable, reference: Callable, args: tuple, *, kind: Kind,
    argnums: Sequence[int] | None = None, digits: int | None = None,
    functions: tuple[reproduce.Spelled, reproduce.Spelled] | None = None, **limits: Any,
) -> Report:  # fmt: skip
    """The report with what a search for failing inputs found; see `fuzz.search` for its limits.

    functions: how the two are written in Python (default: as they can be imported).
    """
    options: dict[str, Any] = dict(argnums=argnums, seed=report.seed)
    found = fuzz.search(candidate, reference, args, kind=kind, **options, **limits)
    code = ""
    if found.args is not None:
        functions = functions or (reproduce.spelled(candidate), reproduce.spelled(reference))
        code = reproduce.call(kind, functions, found.args, **options)
        report = _examined(
            Report(report.name, kind, report.seed), candidate, reference, found.args, kind, argnums,
            digits=digits, beside=args,
        )  # fmt: skip
    found_here = Search(found.trials, found.shapes, code, found.kept)
    return dataclasses.replace(report, search=found_here)


def _raise(report: Report) -> Report:
    __tracebackhide__ = True
    if report.error is not None:
        found = "".join(f"\n  → {d.text}" for d in report.diagnoses)
        report.error.add_note(f"handgrad: raised in the check of {report.name}{found}")
        raise report.error
    if not report.ok:
        raise GradientMismatch(report)
    return report


def _stopped(report: Report, trouble: Trouble) -> Report:
    report = dataclasses.replace(report, diagnoses=trouble.diagnoses)
    if trouble.error is None:
        return dataclasses.replace(report, problem=str(trouble))
    return dataclasses.replace(
        report,
        problem=f"{trouble} {summary(trouble.error)}",
        traceback=user_traceback(trouble.error),
        error=trouble.error,
    )
