"""P10: reusing ν, all gradients cost a small constant times the forward pass, at any depth."""

import itertools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from handgrad.compare.figures.result import Result, axes, save
from handgrad.manual.networks import init_mlp, mlp_loss

DEPTHS = (1, 2, 4, 8, 16)
WIDTH, BATCH = 128, 64  # so wide that the activations count little beside the products
COUNTED = 4  # up to this depth the paths of a net of width 3 are walked, not just computed


def flops(function: Any, *args: Any) -> float:
    """Floating-point operations, as the compiler counts them."""
    cost = jax.jit(function).lower(*args).compile().cost_analysis() or {}
    return float(cost.get("flops", "nan"))


def walked(width: int, depth: int) -> int:
    """Multiplications of the sum over all paths of a net, for one entry of the gradient."""
    return sum(depth for _ in itertools.product(range(width), repeat=depth))


def run(seed: int = 0) -> Result:
    """Nets of growing depth; one sample's per-weight cost is one forward pass for each weight."""
    forward, backprop, weights = [], [], []
    for depth in DEPTHS:
        params = init_mlp((WIDTH,) * (depth + 1), key=jax.random.key(seed))
        x = jnp.ones((BATCH, WIDTH))
        forward.append(flops(lambda p, x, t: mlp_loss.forward(p, x, t)[0], params, x, x))
        backprop.append(flops(mlp_loss.value_and_gradient, params, x, x))
        weights.append(sum(leaf.size for leaf in jax.tree.leaves(params)))
    ratios = np.array(backprop) / np.array(forward)
    by_weight = np.array(weights) * np.array(forward)
    paths = [float(depth) * WIDTH**depth for depth in DEPTHS]
    exact = all(walked(3, d) == d * 3**d for d in range(1, COUNTED + 1))
    return Result(
        claim="P10",
        source="Tobias Hill, “Part 2: Gradient descent and backpropagation” (2018), Hidden layers",
        statement="all gradients cost about three forward passes, at any depth",
        holds=bool(exact and (ratios > 1.5).all() and (ratios < 3.5).all()),
        measured={f"backprop / forward, depth {d}": r for d, r in zip(DEPTHS, ratios, strict=True)}
        | {
            f"one pass per weight / forward, depth {DEPTHS[-1]}": float(weights[-1]),
            f"multiplications over all paths, one entry, depth {DEPTHS[-1]}": paths[-1],
        },
        curves={"forward": forward, "backprop": backprop, "one pass per weight": by_weight,
                "one entry, over all paths": paths},
    )  # fmt: skip


def draw(result: Result, path: str | Path) -> None:
    """Operation counts against depth."""
    figure, ax = axes(result, xlabel="depth", ylabel="operations", yscale="log", ylim=(1e1, 1e15))
    for name, counts in result.curves.items():
        ax.plot(DEPTHS, counts, "o-", label=name)
    ax.legend()
    save(figure, path)
