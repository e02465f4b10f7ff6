"""R4: how much gradient reaches back through time: tanh, relu, LSTM, GRU; and clipping."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from handgrad.compare.figures.result import Result, axes, save
from handgrad.manual.optimizers import clip_by_global_norm, clip_by_norm, clip_by_value
from handgrad.manual.quick import compiled
from handgrad.manual.recurrent import gru, lstm, rnn

HIDDEN, LAGS, BATCH, LIMIT = 24, 60, 4, 1.0


def nets(rng: np.random.Generator) -> dict:
    """Name: op, arguments, the place of the recurrent weights among them, configuration."""

    def normal(*shape, scale=1.0):
        return scale * rng.standard_normal(shape)

    turn = np.linalg.qr(normal(HIDDEN, HIDDEN))[0]
    eye, zeros = np.eye(HIDDEN), np.zeros((BATCH, HIDDEN))
    x = normal(BATCH, LAGS, HIDDEN, scale=0.5)
    recurrent = [normal(HIDDEN, n * HIDDEN, scale=0.5 / np.sqrt(HIDDEN)) for n in (3, 4)]
    to_gates = [np.concatenate([np.linalg.qr(normal(HIDDEN, HIDDEN))[0] for _ in range(n)], 1)
                for n in (3, 4)]  # fmt: skip
    remember = np.concatenate([np.zeros(HIDDEN), np.full(HIDDEN, 3.0), np.zeros(2 * HIDDEN)])
    update = np.concatenate([np.zeros(HIDDEN), np.full(HIDDEN, 3.0), np.zeros(HIDDEN)])
    long = zeros, zeros, to_gates[1], recurrent[1], remember
    return {
        "tanh, ‖W‖ = 0.9": (rnn, (x, zeros, eye, 0.9 * turn, np.zeros(HIDDEN)), 3, {}),
        "relu, ‖W‖ = 2": (
            rnn, (x, zeros, eye, 2 * turn, np.zeros(HIDDEN)), 3, {"activation": "relu"}),
        "relu, W = I": (rnn, (np.abs(x), zeros, eye, eye, np.zeros(HIDDEN)), 3,
                        {"activation": "relu"}),
        "LSTM": (lstm, (x, *long, None), 4, {}),
        "LSTM, peepholes": (lstm, (x, *long, normal(3, HIDDEN, scale=0.1)), 4, {}),
        "GRU": (gru, (x, zeros, to_gates[0], recurrent[0], update), 3, {}),
    }  # fmt: skip


def gradients(op, args, config, cotangent):
    """The cotangents of all arguments, for the last state times a random vector."""

    @compiled
    def backward(args):
        y, residuals = op.forward(*args, **config)
        last = jax.tree.map(jnp.zeros_like, y)
        if isinstance(last, tuple):
            last = last[0].at[:, -1].set(cotangent), last[1]
        else:
            last = last.at[:, -1].set(cotangent)
        return op.pullback(residuals, last, **config)

    return jax.tree.map(np.asarray, backward(args))


def clipped(transformation, gradient):
    return transformation.update(gradient, transformation.init(gradient))[0]


def run(seed: int = 0) -> Result:
    """‖∂(v·h_T)/∂x_{T−lag}‖, the mean over a batch, divided by its value at lag 0."""
    rng = np.random.default_rng(seed)
    cotangent = rng.standard_normal((BATCH, HIDDEN)) / np.sqrt(HIDDEN)
    with jax.enable_x64(True):
        norms, weights = {}, {}
        for name, (op, args, place, config) in nets(rng).items():
            found = gradients(op, args, config, jnp.asarray(cotangent))
            by_time = np.linalg.norm(found[0], axis=-1).mean(0)[::-1]
            norms[name] = by_time / by_time[0]
            weights[name] = found[place]
        exploded = {"W": jnp.asarray(weights["relu, ‖W‖ = 2"])}
        value = np.asarray(clipped(clip_by_value(LIMIT), exploded)["W"])
        norm = np.asarray(clipped(clip_by_norm(LIMIT), exploded)["W"])
        total = np.asarray(clipped(clip_by_global_norm(LIMIT), exploded)["W"])
    bound = 0.9 ** np.arange(LAGS)
    at = {name: float(curve[50]) for name, curve in norms.items()}
    clips = {
        "largest entry after clipping by value": float(np.abs(value).max()),
        "norm after clipping by norm": float(np.linalg.norm(norm)),
        "norm after clipping by global norm": float(np.linalg.norm(total)),
    }
    gated = min(at["LSTM"], at["LSTM, peepholes"], at["GRU"])
    return Result(
        claim="R4",
        source="“The Math Behind Deep Learning” (ch. 14), after eq. 14.185",
        statement="tanh forgets, relu explodes or keeps, gates keep; clipping bounds the gradient",
        holds=bool(
            (norms["tanh, ‖W‖ = 0.9"] <= bound * (1 + 1e-9)).all()
            and at["tanh, ‖W‖ = 0.9"] < 1e-3
            and at["relu, ‖W‖ = 2"] > 1e3
            and abs(at["relu, W = I"] - 1) < 1e-9
            and gated > 100 * at["tanh, ‖W‖ = 0.9"]
            and max(abs(size - LIMIT) for size in clips.values()) < 1e-9
        ),
        measured={f"gradient at lag 50, {name}": value for name, value in at.items()}
        | {"norm of ∂/∂W, relu, before clipping": float(np.linalg.norm(exploded["W"]))}
        | clips,
        curves={"norms": norms, "bound": bound},
    )


def draw(result: Result, path: str | Path) -> None:
    """The norms against the lag, with the bound of the tanh net."""
    figure, ax = axes(result, xlabel="lag", ylabel="‖∂(v·h)/∂x‖, relative", yscale="log")
    for name, norms in result.curves["norms"].items():
        below = name == "LSTM"  # the LSTM with peepholes runs along it, and both are to be seen
        ax.plot(norms, lw=5 if below else 1.5, alpha=0.4 if below else 1, label=name)
    ax.plot(result.curves["bound"], "k:", label="0.9 to the power of the lag")
    ax.legend(fontsize=7)
    save(figure, path)
