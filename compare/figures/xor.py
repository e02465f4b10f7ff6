"""N8: one neuron cannot learn XOR; two layers learn it by hand-derived backpropagation."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from handgrad.compare.figures.result import Result, axes, save
from handgrad.manual.descent import batch_descent
from handgrad.manual.networks import init_mlp, mlp, mlp_loss
from handgrad.manual.quick import compiled

INPUTS = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
TARGETS = np.array([[-1], [1], [1], [-1]], np.float32)
NETS = {"one neuron": (2, 1), "2-2-1": (2, 2, 1), "2-4-1": (2, 4, 1)}
STARTS = 8
CONFIG = {"output_activation": "tanh"}


def run(seed: int = 0) -> Result:
    """Every net from several random starts; the best final loss and its number of errors."""
    losses, errors, solved = {}, {}, {}
    for name, sizes in NETS.items():

        def train(key, sizes=sizes):
            params = init_mlp(sizes, key=key)
            params, history = batch_descent(
                mlp_loss, params, jnp.asarray(INPUTS), jnp.asarray(TARGETS),
                learning_rate=0.1, epochs=600, **CONFIG,
            )  # fmt: skip
            outputs = mlp(params, jnp.asarray(INPUTS), **CONFIG)
            return history, (jnp.sign(outputs) != TARGETS).sum()

        keys = jax.random.split(jax.random.key(seed), STARTS)
        history, wrong = map(np.asarray, compiled(jax.vmap(train))(keys))
        best = int(np.argmin(history[:, -1]))
        losses[name], errors[name] = history[best], int(wrong.min())
        solved[name] = int((wrong == 0).sum())
    return Result(
        claim="N8",
        source="“Fundamentals of deep learning” (ch. 3), 3.1.2",
        statement="XOR: not by one neuron, but by two layers, by hand-derived backpropagation",
        holds=solved["one neuron"] == 0 and errors["2-2-1"] == errors["2-4-1"] == 0,
        measured={f"errors of 4, {name}": errors[name] for name in NETS}
        | {f"starts of {STARTS} that reach it, {name}": solved[name] for name in NETS},
        curves=losses,
    )


def draw(result: Result, path: str | Path) -> None:
    """The best start of each net."""
    figure, ax = axes(result, xlabel="step", ylabel="½ Σ (ŷ − t)²", yscale="log")
    for name, losses in result.curves.items():
        ax.plot(losses, label=name)
    ax.legend()
    save(figure, path)
