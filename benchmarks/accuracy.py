"""Gradients by hand, by autodiff and of the naive form, in narrow dtypes, against float64.

    python benchmarks/accuracy.py            # a Markdown table
    python benchmarks/accuracy.py --write    # the table also to benchmarks/ACCURACY.md

The naive form is the formula as it is printed, differentiated by autodiff. The truth is autodiff of
the reference in float64, at the inputs as the narrow dtype has rounded them. The error is the
largest of all entries of all gradients, in ulps of the largest entry of its array: 1 is as exact as
the dtype allows, ∞ is NaN or an overflow.
"""

import argparse
import dataclasses
import functools
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.progress import track

from handgrad import manual, reference

FILE = pathlib.Path(__file__).parent / "ACCURACY.md"
DTYPES = (jnp.float32, jnp.bfloat16, jnp.float16)


@dataclasses.dataclass(frozen=True, eq=False)  # hashed by identity: it holds arrays
class Row:
    name: str  # of the operation
    inputs: str  # in words
    naive: Callable
    args: tuple


def normal(*shape: int, scale: float = 1.0, shift: float = 0.0) -> np.ndarray:
    return scale * np.random.default_rng([*shape]).standard_normal(shape) + shift


def softmax(x):
    e = jnp.exp(x)
    return e / e.sum(-1, keepdims=True)


def layer_norm(x, gamma, beta):
    mean, square = x.mean(-1, keepdims=True), jnp.square(x).mean(-1, keepdims=True)
    x_hat = (x - mean) / jnp.sqrt(square - jnp.square(mean) + 1e-5)
    return x_hat * jnp.broadcast_to(gamma, x.shape) + jnp.broadcast_to(beta, x.shape)


def cosine_loss(x, y):
    lengths = jnp.sqrt(jnp.square(x).sum(-1)) * jnp.sqrt(jnp.square(y).sum(-1))
    return 1 - (x * y).sum(-1) / lengths


def kl_divergence(a, b):
    p, q = softmax(a), softmax(b)
    return (p * (jnp.log(p) - jnp.log(q))).sum(-1)


def cross_entropy(logits, labels):
    p = jnp.take_along_axis(softmax(logits), labels[..., None], -1)[..., 0]
    return -jnp.log(p)


def binary_cross_entropy(x, targets):
    p = 1 / (1 + jnp.exp(-x))
    return -targets * jnp.log(p) - (1 - targets) * jnp.log(1 - p)


def attention(q, k, v):
    return softmax(q @ jnp.swapaxes(k, -1, -2) / q.shape[-1] ** 0.5) @ v


def mish(x):
    return x * jnp.tanh(jnp.log(1 + jnp.exp(x)))


X, CLASSES = normal(16, 32), np.arange(16) % 32
ROWS = (
    Row("softmax", "entries of 5", softmax, (5 * X,)),
    Row("softmax", "entries of 100", softmax, (100 * X,)),
    Row("log_sum_exp", "entries of 100", lambda x: jnp.log(jnp.exp(x).sum(-1)), (100 * X,)),
    Row("softplus", "entries of 10", lambda x: jnp.log(1 + jnp.exp(x)), (10 * X,)),
    Row("sigmoid", "entries of 20", lambda x: 1 / (1 + jnp.exp(-x)), (20 * X,)),
    Row("mish", "entries of 10", mish, (10 * X,)),
    Row(
        "binary_cross_entropy_with_logits", "logits of 20", binary_cross_entropy,
        (20 * X, (X > 0).astype(float)),
    ),
    Row(
        "softmax_cross_entropy_with_integer_labels", "logits of 30", cross_entropy,
        (30 * X, CLASSES),
    ),
    Row("kl_divergence_with_logits", "almost equal logits", kl_divergence, (X, 1.001 * X)),
    Row("log_cosh", "residuals of 100", lambda p, t: jnp.log(jnp.cosh(p - t)).mean(-1),
        (100 * X, 0 * X)),
    Row("cosine_similarity_loss", "almost parallel", cosine_loss, (X, X + 0.01 * X[::-1])),
    Row("l2_normalize", "lengths of 1e-25", lambda x: x / jnp.sqrt(jnp.square(x).sum(-1))[:, None],
        (1e-25 * X,)),
    Row("layer_norm", "mean 100, deviation 1", layer_norm,
        (normal(16, 32, shift=100.0), 1 + 0.1 * X[0], X[1])),
    Row("attention", "scores of 100", attention,
        tuple(normal(8, n, scale=5.0) for n in (16, 16, 4))),
)  # fmt: skip


def errors(row: Row, dtype: Any) -> tuple[float, float, float]:
    """By hand, by autodiff of the reference, of the naive form."""
    args = [jnp.asarray(a, dtype if a.dtype == np.float64 else None) for a in row.args]
    config = {"eps": 0.0} if row.name == "l2_normalize" else {}
    hand, plain = (functools.partial(getattr(r, row.name), **config) for r in (manual, reference))
    shape = jax.eval_shape(plain, *args).shape
    dy = jnp.asarray(np.random.default_rng(7).standard_normal(shape), dtype)  # along no input
    with jax.enable_x64(True):
        exact = [jnp.asarray(np.asarray(a), np.float64 if a.dtype == dtype else None) for a in args]
        truth = gradients(plain, exact, jnp.asarray(np.asarray(dy), np.float64))
    hand, autodiff, naive = (
        np.max(list(map(functools.partial(ulps, dtype), gradients(f, args, dy), truth)))
        for f in (hand, plain, row.naive)
    )
    return hand, autodiff, naive


def gradients(f: Callable, args: Sequence[jax.Array], dy: jax.Array) -> list[np.ndarray]:
    @jax.jit
    def run(args, dy):
        gradients = jax.vjp(f, *args)[1](dy)
        return [g for g in gradients if g.dtype != jax.dtypes.float0]

    return [np.asarray(g, np.float64) for g in run(list(args), dy)]


def ulps(dtype: Any, got: np.ndarray, truth: np.ndarray) -> float:
    """Of the largest entry, or of the dtype's least number; nan where the truth is not finite."""
    if not np.isfinite(truth).all():
        return float("nan")
    info = jnp.finfo(dtype)
    ulp = float(info.eps) * max(np.abs(truth).max(), float(info.tiny))
    with np.errstate(invalid="ignore"):
        error = np.abs(got - truth).max() / ulp
    return float(error) if np.isfinite(error) else float("inf")


def markdown(found: dict[Row, list[tuple[float, float, float]]]) -> str:
    names = [jnp.dtype(dtype).name for dtype in DTYPES]
    lines = [
        f"Made by `python benchmarks/accuracy.py --write`: jax {jax.__version__} on "
        f"{jax.default_backend()}; each cell: by hand / autodiff of the reference / the naive "
        "form, which is the formula as it is printed, differentiated by autodiff; the largest "
        "error in ulps; – where rounded inputs have no finite gradient.",
        "",
        f"| operation | inputs | {' | '.join(names)} |",
        "| --- | --- | " + " | ".join("---" for _ in names) + " |",
    ]
    for row, cells in found.items():
        shown = [" / ".join(number(x) for x in cell) for cell in cells]
        lines.append(f"| `{row.name}` | {row.inputs} | {' | '.join(shown)} |")
    return "\n".join(lines) + "\n"


def number(x: float) -> str:
    if np.isnan(x):
        return "–"
    return "∞" if x == float("inf") else f"{x:.2g}" if x < 100 else f"{x:.0e}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-k", metavar="PATTERN", default="", help="only what has it in its name")
    parser.add_argument("--write", action="store_true", help=f"write the table to {FILE.name} too")
    given = parser.parse_args(arguments)
    chosen = [row for row in ROWS if given.k in row.name]
    if not chosen:
        parser.error(f"nothing has {given.k!r} in its name")
    steps = track(chosen, "operations", console=Console(stderr=True))
    table = markdown({row: [errors(row, dtype) for dtype in DTYPES] for row in steps})
    sys.stdout.write(table)
    if given.write:
        FILE.write_text(f"# The accuracy of gradients in narrow dtypes\n\n{table}", "utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
