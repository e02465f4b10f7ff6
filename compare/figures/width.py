"""N9: one hidden layer of growing width comes ever nearer to a continuous function."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from handgrad.compare.figures.result import Result, axes, save
from handgrad.manual.descent import descend
from handgrad.manual.networks import init_mlp, mlp, mlp_loss
from handgrad.manual.optimizers import adam, cosine_schedule
from handgrad.manual.quick import compiled

WIDTHS = (1, 2, 4, 8, 16, 32)
STEPS, STARTS = 2000, 3


def target(x):
    """A continuous function with a kink."""
    return jnp.sin(3 * jnp.pi * x) * (1 - x**2) + 0.5 * jnp.abs(x - 0.3)


def run(seed: int = 0) -> Result:
    """The largest error on a finer grid, for every width, the best of a few starts."""
    x = jnp.linspace(-1, 1, 97)[:, None]
    fine = jnp.linspace(-1, 1, 1001)[:, None]
    errors, fits = [], {}
    for width in WIDTHS:

        def fit(key, width=width):
            params = init_mlp((1, width, 1), key=key)
            (w, b), last = params
            params = [(4 * w, 4 * jax.random.uniform(key, b.shape, minval=-1)), last]
            everything = jnp.tile(jnp.arange(x.shape[0]), (STEPS, 1))
            optimizer = adam(cosine_schedule(0.03, 0.03, 0, STEPS))
            params, _ = descend(
                mlp_loss, optimizer, params, (x, target(x)), everything, reduction="mean"
            )
            return mlp(params, fine)[:, 0]

        keys = jax.random.split(jax.random.key(seed), STARTS)
        outputs = np.asarray(compiled(jax.vmap(fit))(keys))
        gaps = np.abs(outputs - np.asarray(target(fine))[None, :, 0]).max(1)
        errors.append(float(gaps.min()))
        fits[width] = outputs[int(gaps.argmin())]
    slope = float(np.polyfit(np.log(WIDTHS), np.log(errors), 1)[0])
    return Result(
        claim="N9",
        source="“Fundamentals of deep learning” (ch. 3), 3.1.3",
        statement="one hidden layer: the largest error falls with its width",
        holds=slope < -0.5 and errors[-1] < errors[0] / 10,
        measured={f"largest error, width {n}": e for n, e in zip(WIDTHS, errors, strict=True)}
        | {"slope in log-log": slope},
        curves={"fine": np.asarray(fine)[:, 0], "target": np.asarray(target(fine))[:, 0],
                "fits": fits, "errors": errors},
    )  # fmt: skip


def draw(result: Result, path: str | Path) -> None:
    """Some of the fits, and the error against the width."""
    curves = result.curves
    figure, (left, right) = axes(result, count=2)
    left.plot(curves["fine"], curves["target"], "k", lw=2, label="target")
    for width in (2, 8, 32):
        left.plot(curves["fine"], curves["fits"][width], label=f"width {width}")
    left.set(xlabel="x", ylabel="target, outputs of the nets")
    left.legend()
    right.loglog(WIDTHS, curves["errors"], "o-")
    right.set(xlabel="width", ylabel="largest error")
    save(figure, path)
