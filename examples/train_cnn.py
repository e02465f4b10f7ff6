"""Train a convolutional network on handwritten digits with gradients derived by hand alone.

    python examples/train_cnn.py

A network as LeNet, on the 1,797 digits of 8×8 that scikit-learn ships; the loss curves are saved as
a picture. A twin is trained with autodiff beside it, and the two must agree at every step within
rounding: twins.py has how that is measured.
"""

import argparse
import functools
import itertools
import sys
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import twins
from extras import need
from rich.console import Console

from handgrad import manual, reference

BATCH = 32


def gradient_by_hand(params: Any, x: jax.Array, labels: jax.Array) -> tuple[jax.Array, Any]:
    loss, (gradient, *_) = manual.lenet_loss.value_and_gradient(params, x, labels)
    return loss, gradient


def gradient_by_autodiff(params: Any, x: jax.Array, labels: jax.Array) -> tuple[jax.Array, Any]:
    return jax.value_and_grad(reference.lenet_loss)(params, x, labels)


def first_weights(channels: Sequence[int], hidden: int, key: jax.Array) -> Any:
    """Windows of 3×3 over the 8×8 pixels, framed to 10: (8, 8), halved (4, 4), (2, 2), (1, 1)."""
    keys = iter(jax.random.split(key, 4))
    sizes = [(*pair, next(keys)) for pair in itertools.pairwise([1, *channels])]
    dense = [(*pair, next(keys)) for pair in itertools.pairwise([channels[-1], hidden, 10])]
    return {
        "convolutions": [(twins.weights(k, 3, 3, a, b), jnp.zeros(b)) for a, b, k in sizes],
        "dense": [(twins.weights(k, a, b), jnp.zeros(b)) for a, b, k in dense],
    }


def digits(seed: int) -> list[np.ndarray]:
    """Images (samples, 10, 10, 1) with a frame of zeros, and labels: to train on, and to test."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    x = np.pad((images / 16).reshape(-1, 8, 8, 1), [(0, 0), (1, 1), (1, 1), (0, 0)])
    x, y = x.astype(np.float32), labels.astype(np.int32)
    parts = train_test_split(x, y, test_size=0.2, random_state=seed, stratify=y)
    return list(map(np.asarray, parts))


def batches(x: np.ndarray, y: np.ndarray, epochs: int, seed: int) -> list[tuple]:
    """For every epoch the images in another order: (batch, 10, 10, 1) and their labels."""
    rng = np.random.default_rng(seed)
    steps = len(x) // BATCH
    orders = [rng.permutation(len(x))[: steps * BATCH].reshape(steps, BATCH) for _ in range(epochs)]
    return [(jnp.asarray(x[rows]), jnp.asarray(y[rows])) for rows in np.concatenate(orders)]


def accuracy(params: Any, x: np.ndarray, y: np.ndarray) -> float:
    """The share of the images whose label has the least loss of the ten."""
    loss = jax.jit(jax.vmap(manual.lenet_loss, (None, 0, 0)))
    by_class = [
        loss(params, jnp.asarray(x)[:, None], jnp.full((len(x), 1), label, jnp.int32))
        for label in range(10)
    ]
    return float(np.mean(np.argmin(by_class, 0) == y))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="train_cnn.py",
        description="Train a convolutional network on handwritten digits with hand-derived "
        "gradients only, beside a twin trained with autodiff. Exit code 0: their losses agree at "
        "every step within rounding; 1: they do not.",
    )
    parser.add_argument("--epochs", type=twins.positive, default=20, metavar="N",
                        help="passes through the data (default: 20)")  # fmt: skip
    parser.add_argument("--hidden", type=twins.positive, default=32, metavar="N",
                        help="units of the dense layer (default: 32)")  # fmt: skip
    twins.add_options(parser)
    options = parser.parse_args(arguments)
    need(__file__, "matplotlib", "sklearn")
    x_train, x_test, y_train, y_test = digits(options.seed)
    console = Console()
    console.print(
        f"{len(x_train)} digits to train on, {len(x_test)} to test; two convolutions of 3×3, tanh, "
        f"means of 2×2, then 16 → {options.hidden} → 10; seed {options.seed}; "
        f"{jax.default_backend()}"
    )
    weights_key, nudge_key = jax.random.split(jax.random.key(options.seed))
    plan = batches(x_train, y_train, options.epochs, options.seed)
    with twins.progress_bar(console) as progress:
        task = progress.add_task("steps", total=len(plan))
        curves = twins.train(
            gradient_by_hand, gradient_by_autodiff,
            first_weights((8, 16), options.hidden, weights_key),
            plan, 1e-2, nudge_key, functools.partial(progress.advance, task),
        )  # fmt: skip
    right = f"{accuracy(curves.params, x_test, y_test):.2%}"
    results = {"convolutional": curves}
    console.print(twins.table(results, {"convolutional": {"test accuracy": right}}))
    twins.picture(results, options.out)
    console.print(f"the curves are in {options.out}", soft_wrap=True)
    if astray := twins.verdict(parser.prog, results):
        print(astray, file=sys.stderr)
    return 1 if astray else 0


if __name__ == "__main__":
    sys.exit(main())
