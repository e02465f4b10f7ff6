"""Batch, mini-batch and stochastic descent on handwritten digits: three loss curves, one picture.

    python examples/descent.py --out descent.png

The net and its gradient are `handgrad.manual.mlp_loss`; every gradient is hand-written.
"""

import argparse
import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from extras import need
from rich.console import Console
from rich.progress import track

from handgrad.manual.descent import descend, epochs_of_batches
from handgrad.manual.networks import init_mlp, mlp, mlp_loss
from handgrad.manual.optimizers import sgd

LOSS = "softmax_cross_entropy_with_integer_labels"


@dataclasses.dataclass(frozen=True)
class Curve:
    """What one kind of descent saw, and how it did on all samples after every epoch."""

    epochs_at: np.ndarray  # the time of each step, in epochs
    seen: np.ndarray  # the loss of each step's own batch
    full: np.ndarray  # the mean loss of all samples, before the first epoch and after each
    accuracy: float


def train(samples: int = 1000, epochs: int = 20, rate: float = 0.05, size: int = 32) -> dict:
    """The curves of the three descents, from the same start, as many epochs each."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    x = jnp.asarray(images[:samples] / 16, jnp.float32)
    y = jnp.asarray(labels[:samples], jnp.int32)
    start = init_mlp((64, 32, 10), key=jax.random.key(0))
    kinds = {  # the batch size, and a rate that suits it
        "batch": (samples, 10 * rate),
        "mini-batch": (min(size, samples), 4 * rate),
        "stochastic": (1, rate),
    }

    @jax.jit
    def full_loss(params):
        return mlp_loss(params, x, y, loss=LOSS, reduction="mean")

    curves = {}
    for name, (batch, eta) in kinds.items():

        @jax.jit
        def epoch(params, batches, eta=eta):
            return descend(mlp_loss, sgd(eta), params, (x, y), batches, loss=LOSS, reduction="mean")

        order = epochs_of_batches(samples, batch, epochs, key=jax.random.key(1))
        steps = order.shape[0] // epochs
        params, seen, full = start, [], [float(full_loss(start))]
        for i in track(range(epochs), f"{name:10}", console=Console(stderr=True)):
            params, losses = epoch(params, order[i * steps : (i + 1) * steps])
            seen.append(np.asarray(losses))
            full.append(float(full_loss(params)))
        accuracy = float((mlp(params, x).argmax(-1) == y).mean())
        at = np.arange(epochs * steps) / steps
        curves[name] = Curve(at, np.concatenate(seen), np.array(full), accuracy)
    return curves


def draw(curves: dict, path: pathlib.Path) -> None:
    """One panel for each descent: the loss of its batches, and that of all samples."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.6), layout="constrained")
    axes = figure.subplots(1, len(curves), sharey=True)
    for ax, (name, curve) in zip(axes, curves.items(), strict=True):
        ax.plot(curve.epochs_at, np.maximum(curve.seen, 1e-4), lw=0.6, alpha=0.6, color="C0")
        ax.plot(np.arange(curve.full.size), curve.full, lw=2, color="C3")
        ax.set_title(f"{name}: {curve.seen.size} steps, {curve.accuracy:.1%} right")
        ax.set_xlabel("epochs")
        ax.set_yscale("log")
        ax.grid(alpha=0.3)
    axes[0].set_ylabel("cross-entropy")
    axes[0].legend(["of the step's batch", "of all samples"], loc="lower left")
    figure.savefig(path, dpi=150)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    picture = pathlib.Path(parser.prog).with_suffix(".png")
    parser.add_argument("--out", type=pathlib.Path, default=picture, help=f"picture ({picture})")
    parser.add_argument("--samples", type=int, default=1000, help="digits to learn (1 … 1797)")
    parser.add_argument("--epochs", type=int, default=20)
    given = parser.parse_args(arguments)
    if not 1 <= given.samples <= 1797 or given.epochs < 1:
        parser.error("--samples must lie in 1 … 1797 and --epochs be at least 1")
    if given.out.suffix not in {".png", ".svg", ".pdf"}:
        parser.error(f"--out is {given.out}; it must end in .png, .svg or .pdf")
    if not given.out.absolute().parent.is_dir():
        parser.error(f"--out is {given.out}, and there is no folder {given.out.parent}")
    need(__file__, "matplotlib", "sklearn")
    curves = train(given.samples, given.epochs)
    draw(curves, given.out)
    for name, curve in curves.items():
        print(f"{name:10}  {curve.seen.size:6} steps  final loss {curve.full[-1]:.4f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
