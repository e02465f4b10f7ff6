"""Write docs/optimizers.md: where the optimisers' conventions differ, out of their signatures.

python docs/optimizers.py           # rewrite the page
python docs/optimizers.py --check   # exit 1 if the page is not what it would be
"""

import argparse
import inspect
import pathlib

import numpy as np
import optax

from handgrad.compare.optimizer import examine_optimizer, sample_gradients
from handgrad.manual import optimizers as manual
from handgrad.manual.optimizers import printed
from handgrad.reference import optimizers as reference

PAGE = pathlib.Path(__file__).with_suffix(".md")

# What torch.optim's constructors have by default; tests/test_peers_optimizers.py verifies it.
TORCH = {
    "SGD": {"momentum": 0, "dampening": 0, "nesterov": False, "weight_decay": 0},
    "Adagrad": {"lr": 0.01, "initial_accumulator_value": 0, "eps": 1e-10},
    "RMSprop": {"lr": 0.01, "alpha": 0.99, "eps": 1e-8, "momentum": 0, "centered": False},
    "Adadelta": {"lr": 1.0, "rho": 0.9, "eps": 1e-6},
    "Adam": {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0, "amsgrad": False},
    "AdamW": {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 1e-2},
    "Adamax": {"lr": 2e-3, "betas": (0.9, 0.999), "eps": 1e-8},
    "NAdam": {"lr": 2e-3, "betas": (0.9, 0.999), "eps": 1e-8, "momentum_decay": 4e-3},
    "RAdam": {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8},
    "Adafactor": {"lr": 1e-2, "beta2_decay": -0.8, "eps": (None, 1e-3), "d": 1.0},
    "Muon": {"lr": 1e-3, "weight_decay": 0.1, "momentum": 0.95, "nesterov": True, "eps": 1e-7},
}

# The method; what the convention is about; the paper; optax; PyTorch; how to have each here.
# {name.argument} is the default in the signature of ours, {optax:name.argument} in optax's.
CONVENTIONS = [
    (
        "momentum",
        "the rate of a schedule",
        "outside the velocity (Polyak: inside)",
        "outside",
        "outside",
        "`rate_inside=True` puts it inside",
    ),
    (
        "sgdw",
        "weight decay",
        "decoupled (Loshchilov and Hutter)",
        "as chained",
        "coupled: in the gradient, and so in the velocity",
        "`decoupled={sgdw.decoupled}`",
    ),
    (
        "adagrad",
        "start of G",
        "0",
        "{optax:adagrad.initial_accumulator_value}",
        "0",
        "`initial_accumulator_value={adagrad.initial_accumulator_value}`",
    ),
    (
        "adagrad",
        "ε",
        "√G + ε",
        "√(G + ε), ε = {optax:adagrad.eps}",
        "√G + ε, ε = 1e-10",
        "`eps_in_sqrt={adagrad.eps_in_sqrt}`",
    ),
    (
        "rmsprop",
        "ρ",
        "0.9 (the lecture)",
        "{optax:rmsprop.decay}",
        "0.99",
        "`decay={rmsprop.decay}`",
    ),
    (
        "rmsprop",
        "ε",
        "none (Graves: √(v + ε))",
        "√(v + ε)",
        "√v + ε",
        "`eps_in_sqrt={rmsprop.eps_in_sqrt}`",
    ),
    (
        "rmsprop",
        "the rate and the velocity",
        "inside (Graves)",
        "inside",
        "outside",
        "`rate_inside={rmsprop.rate_inside}`",
    ),
    (
        "adadelta",
        "learning rate",
        "none (1)",
        "{optax:adadelta.learning_rate}: no rate **and no minus sign**, so it climbs",
        "1",
        "`learning_rate={adadelta.learning_rate}`",
    ),
    ("adadelta", "ρ", "0.95", "{optax:adadelta.rho}", "0.9", "`rho={adadelta.rho}`"),
    (
        "adamw",
        "λ",
        "—",
        "{optax:adamw.weight_decay}",
        "0.01",
        "`weight_decay={adamw.weight_decay}`",
    ),
    (
        "adamw",
        "what multiplies λθ",
        "the schedule, not η",
        "η",
        "η",
        "`scale_decay={adamw.scale_decay}`",
    ),
    (
        "amsgrad",
        "correction of v",
        "none",
        "before the maximum",
        "after the maximum",
        "`bias_correction_nu={amsgrad.bias_correction_nu}`, `False`, `'after'`",
    ),
    (
        "amsgrad",
        "correction of m",
        "none",
        "yes",
        "yes",
        "`bias_correction_mu={amsgrad.bias_correction_mu}`",
    ),
    ("adamax", "ε", "none", "inside the maximum", "inside the maximum", "`eps={adamax.eps}`"),
    (
        "nadam",
        "μₜ",
        "β₁(1 − ½·0.96^(0.004t))",
        "β₁",
        "β₁(1 − ½·0.96^(0.004t))",
        "`momentum_decay={nadam.momentum_decay}`",
    ),
    ("nadam", "v̂", "multiplied by β₂ once more", "not", "not", "not"),
    (
        "radam",
        "rectified when",
        "ρₜ > 4",
        "ρₜ ≥ {optax:radam.threshold}",
        "ρₜ > 5",
        "`threshold={radam.threshold}`",
    ),
    ("radam", "ε", "none", "√v̂ + ε", "√v + ε, then corrected", "√v̂ + ε"),
    (
        "lion",
        "λ",
        "0 in the authors' code",
        "{optax:lion.weight_decay}",
        "—",
        "`weight_decay={lion.weight_decay}`",
    ),
    ("lamb", "λ", "0.01", "{optax:lamb.weight_decay}", "—", "`weight_decay={lamb.weight_decay}`"),
    (
        "adafactor",
        "learning rate",
        "min(0.01, 1/√t)",
        "{optax:adafactor.learning_rate}: 1",
        "min(lr, 1/√t)",
        "`learning_rate={adafactor.learning_rate}`, `relative_step_schedule()`",
    ),
    (
        "adafactor",
        "factored from",
        "every matrix",
        "{optax:adafactor.min_dim_size_to_factor}",
        "every matrix",
        "`min_dim_size_to_factor={adafactor.min_dim_size_to_factor}`",
    ),
    (
        "adafactor",
        "precision of 1 − t^(−0.8)",
        "—",
        "float32, whatever the parameters",
        "float64",
        "that of JAX's default",
    ),
    (
        "muon",
        "momentum",
        "a sum, g + βb",
        "a mean, corrected",
        "a mean, not corrected",
        "`bias_correction={muon.bias_correction}`",
    ),
    (
        "muon",
        "orthogonalised in",
        "bfloat16",
        "the parameters' precision",
        "bfloat16",
        "the parameters' precision",
    ),
    (
        "muon",
        "other leaves",
        "AdamW",
        "NAdam with decay 0, as `nesterov` is passed on",
        "refused",
        "as optax",
    ),
]

PRINTED = {
    "adagrad_halved": (lambda: reference.adagrad(0.01, 0.0), "η is halved after every step"),
    "adagrad_reciprocals": (
        lambda: reference.adagrad(0.01, 0.0),
        "G is the sum of the reciprocals of root mean squares",
    ),
    "rmsprop_halved": (lambda: reference.rmsprop(0.01), "η is halved after every step"),
    "rmsprop_over_rate": (lambda: reference.rmsprop(0.01), "the square is divided by 2η"),
    "adam_halved": (lambda: reference.adam(0.01), "η is halved after every step"),
    "adam_linear": (lambda: reference.adam(0.01), "β₁ᵗ and β₂ᵗ decay linearly"),
}


class _Defaults:
    """`{name.argument}` in a format string: the default of that constructor."""

    def __init__(self, module):
        self.module = module

    def __getattr__(self, name):
        signature = inspect.signature(getattr(self.module, name))
        return type(name, (), {key: p.default for key, p in signature.parameters.items()})


def conventions() -> str:
    """The table of differences."""
    names = {row[0] for row in CONVENTIONS}
    defaults = {name: getattr(_Defaults(manual), name) for name in names}
    theirs = {
        f"optax:{name}": getattr(_Defaults(optax), name) for name in names if hasattr(optax, name)
    }
    lines = [
        "| method | about | paper | optax | PyTorch | here |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, *cells in CONVENTIONS:
        cells = [_fill(cell, defaults | theirs) for cell in cells]
        lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _fill(cell: str, values: dict) -> str:
    for key, owner in values.items():
        for name, value in vars(owner).items():
            cell = cell.replace(f"{{{key}.{name}}}", str(value))
    if "{" in cell:
        raise ValueError(f"no constructor has the default in {cell!r}")
    return cell


def departures() -> str:
    """How far the printed statements lead from optax: the way of 1, 10, 100 and 1,000 steps."""
    rng = np.random.default_rng(0)
    params = {"w": rng.standard_normal(50)}
    gradients = sample_gradients(rng, params)
    lines = [
        "| as printed | statement | first departs at step | relative departure there | worst in "
        "10 steps | in 1,000 steps |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, (right, statement) in PRINTED.items():
        worst = []
        for steps in (10, 1000):
            few = {"w": gradients["w"][:steps]}
            # parameters only: the fields of the state are given names that match nothing
            report = examine_optimizer(
                getattr(printed, name)(0.01),
                right(),
                params,
                few,
                fields={field: f"printed {field}" for field in ("sum_of_squares", "mu", "nu")},
            )
            worst.append(report.float64.worst)
        first = next(d for d in report.float64.departures if d.what == "params")
        lines.append(
            f"| `printed.{name}` | {statement} | {first.step} | {first.relative:.1e} | "
            f"{worst[0]:.1e} | {worst[1]:.1e} |"
        )
    return "\n".join(lines)


def page() -> str:
    return f"""# Optimisers: conventions and errata

This page is written by `python docs/optimizers.py`.

Every optimiser of `handgrad.manual.optimizers` has optax's interface and, by default, optax's
numbers: trajectories of 1,000 steps agree in float64 to 1e-12 relative, parameters and state, at
every step (`tests/test_manual_optimizers.py`). Papers and PyTorch do some things otherwise; each
difference is an argument, and both settings are verified: against optax where it has them, else
against the plain formula, and against PyTorch (`tests/test_peers_optimizers.py`).

## Where the conventions differ

{conventions()}

Schedules count from 0 at the first step, as optax does; PyTorch's count the calls of `step()` and
agree. The Transformer's schedule (`noam_schedule`) takes its step number as t + 1.

Half-precision leaves are computed in float32 and rounded once; the state has the dtype of the
parameters that `init` was given. A second moment with β₂ = 0.999 moves by a thousandth of itself a
step, less than bfloat16 resolves: `init` it with float32 copies of bfloat16 parameters, and it
stays float32.

## What is more accurate here than in optax

- 1 − βᵗ is `-expm1(t ln β)`: in float32, optax's `1 - beta**t` is wrong by 1e-5 at the first
  steps for β = 0.999.
- RAdam's ρₜ is a sum without cancellation: optax's is wrong by 0.04 at t = 6 in float32, the
  first rectified steps by one per cent, and in float64 by some 1e-11.
- Adafactor's decay is float32 in optax even for float64 parameters: its float64 trajectories
  carry that error, 1e-8 a step.
- A schedule of optax divides an int32 step number in float32 even where x64 is on.

## What one document prints

"Backpropagation and optimisers" (blog), sections 7–9, has the right formulas of AdaGrad and Adam
and, in the words around them, six statements that are not. Each is kept as a named variant with
that one statement taken as printed. Departures are relative to the largest magnitude of each
parameter so far, from optax, with η = 0.01 on gradients of sizes 1e-3 … 1e3.

{departures()}

The first step of a halved rate is still right. Halved, the whole way of a parameter is at most
that of two steps; with the square over 2η every step is √(2η) times as long; with the reciprocals
a gradient c times as large makes a step c^(3/2) times as long.
"""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare, and write nothing")
    given = parser.parse_args(arguments)
    text = page()
    if given.check:
        return int(PAGE.read_text() != text)
    PAGE.write_text(text)
    print(f"wrote {PAGE}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
