"""Train a multilayer perceptron on handwritten digits with gradients derived by hand alone.

    python examples/train_digits.py

Batch, mini-batch and stochastic gradient descent, on the 1,797 digits that scikit-learn ships or,
with --mnist FILE.npz, on MNIST; the loss curves are saved as a picture. A twin is trained with
autodiff from the same weights on the same batches, and the two curves must agree at every step
within rounding. How far rounding alone leads is measured: by a third training, with autodiff, from
weights that were moved by one ulp.
"""

import argparse
import dataclasses
import functools
import pathlib
import sys
import zipfile
import zlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from extras import need
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from handgrad import manual, reference

# How many times as far as the moved twin: that one is a single draw of what rounding can do.
ROUNDING = 10

PICTURES = (".png", ".svg", ".pdf")


class Digits(NamedTuple):
    """Images in rows, with values between 0 and 1, and their labels."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


@dataclasses.dataclass(frozen=True)
class Method:
    title: str
    batch_size: int | None  # None: all samples
    learning_rate: float
    epochs_of_digits: int
    epochs_of_mnist: int


METHODS = {
    "batch": Method("batch (BGD)", None, 0.8, 500, 100),
    "minibatch": Method("mini-batch", 32, 0.2, 30, 5),
    "stochastic": Method("stochastic (SGD)", 1, 0.02, 12, 2),
}


class Curves(NamedTuple):
    """The loss before every step, of the three trainings, and how well the first one learnt."""

    hand: np.ndarray  # (steps,)
    autodiff: np.ndarray  # (steps,)
    moved: np.ndarray  # (steps,), autodiff from weights moved by one ulp
    epochs: np.ndarray  # (steps,), the epoch, with its fraction, at each step
    accuracy: float  # on the test images

    @property
    def departure(self) -> float:
        """The largest distance of a loss by hand from autodiff's at the same step."""
        return float(np.abs(self.hand - self.autodiff).max())

    @property
    def rounding(self) -> float:
        """The same for the training from moved weights, and one ulp of a loss at the least."""
        ulp = float(np.spacing(np.abs(self.autodiff).max()))
        return max(float(np.abs(self.moved - self.autodiff).max()), ulp)

    @property
    def agree(self) -> bool:
        return self.departure <= ROUNDING * self.rounding  # False for nan too


def train(
    digits: Digits, method: Method, epochs: int, hidden: Sequence[int], seed: int,
    advance: Callable[[], Any],
) -> Curves:  # fmt: skip
    """Train by hand, its twin by autodiff, and the twin from moved weights, epoch by epoch."""
    data = (jnp.asarray(digits.x_train), jnp.asarray(digits.y_train))
    samples, pixels = digits.x_train.shape
    batch_size = min(method.batch_size or samples, samples)
    weights_key, nudge_key, order_key = jax.random.split(jax.random.key(seed), 3)
    start = manual.init_mlp([pixels, *hidden, 10], key=weights_key)
    by_hand = epoch_of(gradient_by_hand, method.learning_rate)
    by_autodiff = epoch_of(gradient_by_autodiff, method.learning_rate)

    trained = [start, start, one_ulp_away(start, nudge_key)]
    losses: list[list[np.ndarray]] = [[], [], []]
    for epoch in range(epochs):
        order = jax.random.permutation(jax.random.fold_in(order_key, epoch), samples)
        batches = order[: samples - samples % batch_size].reshape(-1, batch_size)
        for i, run in enumerate((by_hand, by_autodiff, by_autodiff)):
            trained[i], values = run(trained[i], data, batches)
            losses[i].append(np.asarray(values))
        advance()
    hand, autodiff, moved = (np.concatenate(curve) for curve in losses)
    return Curves(
        hand, autodiff, moved, np.arange(hand.size) / (hand.size / epochs),
        accuracy(trained[0], digits.x_test, digits.y_test),
    )  # fmt: skip


CONFIG: dict[str, Any] = {
    "activation": "tanh",
    "loss": "softmax_cross_entropy_with_integer_labels",
    "reduction": "mean",
}


def gradient_by_hand(params: Any, x: jax.Array, labels: jax.Array) -> tuple[jax.Array, Any]:
    loss, (gradient, *_) = manual.mlp_loss.value_and_gradient(params, x, labels, **CONFIG)
    return loss, gradient


def gradient_by_autodiff(params: Any, x: jax.Array, labels: jax.Array) -> tuple[jax.Array, Any]:
    return jax.value_and_grad(reference.mlp_loss)(params, x, labels, **CONFIG)


def epoch_of(gradient: Callable[..., tuple[jax.Array, Any]], learning_rate: float) -> Callable:
    """One step of descent for every row of indices: (params, data, batches) -> params, losses."""

    def step(data, params, rows):
        loss, slopes = gradient(params, *(column[rows] for column in data))
        return jax.tree.map(lambda w, dw: w - learning_rate * dw, params, slopes), loss

    @jax.jit
    def epoch(params, data, batches):
        return jax.lax.scan(functools.partial(step, data), params, batches)

    return epoch


def one_ulp_away(params: Any, key: jax.Array) -> Any:
    """Every number moved to its neighbour, up or down at random."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))
    moved = [
        jnp.nextafter(leaf, jnp.where(jax.random.bernoulli(k, shape=leaf.shape), jnp.inf, -jnp.inf))
        for leaf, k in zip(leaves, keys, strict=True)
    ]
    return jax.tree.unflatten(tree, moved)


def accuracy(params: Any, x: np.ndarray, y: np.ndarray) -> float:
    """The share of the images whose largest output is that of their label."""
    return float(np.mean(np.argmax(manual.mlp(params, jnp.asarray(x), activation="tanh"), -1) == y))


# --- data ----------------------------------------------------------------------------------------


class BadData(Exception):
    """A file that cannot be used: one sentence, what it holds and what it must hold."""


def embedded(seed: int) -> Digits:
    """The 8×8 digits that scikit-learn ships: 1,437 to train on, 360 to test."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    x = (images / 16).astype(np.float32)
    y = labels.astype(np.int32)
    parts = train_test_split(x, y, test_size=0.2, random_state=seed, stratify=y)
    x_train, x_test, y_train, y_test = map(np.asarray, parts)
    return Digits(x_train, y_train, x_test, y_test)


def mnist(path: str) -> Digits:
    """From an .npz file with the arrays x_train, y_train, x_test and y_test."""
    file = pathlib.Path(path)
    if not file.is_file():
        raise BadData(
            f"there is no file {path}; --mnist takes an .npz file with the arrays "
            f"{', '.join(Digits._fields)}"
        )
    if not zipfile.is_zipfile(file):
        raise BadData(f"{path} is not an .npz file, as numpy.savez writes it")
    try:
        with np.load(file) as arrays:
            missing = [name for name in Digits._fields if name not in arrays]
            if missing:
                raise BadData(
                    f"{path} has no {', '.join(missing)}; it must hold the arrays "
                    f"{', '.join(Digits._fields)}, and it holds {', '.join(arrays) or 'none'}"
                )
            found = {name: arrays[name] for name in Digits._fields}
    except (zipfile.BadZipFile, zlib.error, ValueError, TypeError, EOFError, OSError) as error:
        raise BadData(f"{path} cannot be read as an .npz file of arrays: {error}") from error
    for part in ("train", "test"):
        x, y = found[f"x_{part}"], found[f"y_{part}"]
        if y.ndim != 1 or x.ndim < 2 or len(x) != len(y) or not x.size:
            raise BadData(
                f"{path}: x_{part} has shape {x.shape} and y_{part} {y.shape}; they must be "
                "(samples, height, width) and (samples,)"
            )
        if not np.issubdtype(y.dtype, np.integer) or y.min() < 0 or y.max() > 9:
            raise BadData(f"{path}: y_{part} must hold whole numbers from 0 to 9")
        top = {"u": 255, "i": 255, "f": 1}.get(x.dtype.kind, 0)
        if not (top and x.min() >= 0 and x.max() <= top):  # nor nan
            raise BadData(
                f"{path}: x_{part} must hold whole numbers from 0 to 255, or fractions between 0 "
                "and 1"
            )
        found[f"x_{part}"] = x.reshape(len(x), -1).astype(np.float32) / np.float32(top)
        found[f"y_{part}"] = y.astype(np.int32)
    digits = Digits(**found)
    pixels = digits.x_train.shape[1], digits.x_test.shape[1]
    if pixels[0] != pixels[1]:
        raise BadData(
            f"{path}: the images of x_train have {pixels[0]} pixels and those of x_test "
            f"{pixels[1]}; they must have as many"
        )
    return digits


# --- the command ---------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    parser = command_line()
    options = parser.parse_args(arguments)
    if options.out.suffix not in PICTURES:
        parser.error(f"--out is {options.out}; it must end in {', '.join(PICTURES)}")
    if not options.out.absolute().parent.is_dir():
        parser.error(f"--out is {options.out}, and there is no folder {options.out.parent}")
    need(__file__, "matplotlib", *[] if options.mnist else ["sklearn"])
    try:
        digits = mnist(options.mnist) if options.mnist else embedded(options.seed)
    except BadData as bad:
        print(f"{parser.prog}: {bad}", file=sys.stderr)
        return 2
    samples = len(digits.x_train)
    name = "MNIST" if options.mnist else "digits"
    plan = {}
    for key in options.method:
        method = METHODS[key]
        usual = method.epochs_of_mnist if options.mnist else method.epochs_of_digits
        plan[method] = options.epochs or usual
    console = Console()
    console.print(
        f"{samples} {name} to train on, {len(digits.x_test)} to test; "
        f"layers {' → '.join(map(str, [digits.x_train.shape[1], *options.hidden, 10]))}, "
        f"tanh; seed {options.seed}; {jax.default_backend()}"
    )
    results = {}
    with progress_bar(console) as progress:
        for method, epochs in plan.items():
            task = progress.add_task(method.title, total=epochs)
            results[method] = train(
                digits, method, epochs, options.hidden, options.seed,
                functools.partial(progress.advance, task),
            )  # fmt: skip
    console.print(table(results))
    picture(results, options.out)
    console.print(f"the curves are in {options.out}", soft_wrap=True)
    astray = [method.title for method, curves in results.items() if not curves.agree]
    if astray:
        print(
            f"{parser.prog}: the loss by hand departs from autodiff's by more than rounding: "
            f"{', '.join(astray)}",
            file=sys.stderr,
        )
    return 1 if astray else 0


def command_line() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="train_digits.py",
        description="Train a multilayer perceptron on handwritten digits with hand-derived "
        "gradients only, beside a twin trained with autodiff. Exit code 0: their losses agree at "
        "every step within rounding; 1: they do not; 2: the data cannot be used, or a library is "
        "missing.",
    )
    add = parser.add_argument
    add("--mnist", metavar="FILE.npz",
        help="train on this file instead of scikit-learn's digits; it holds the arrays "
        "x_train, y_train, x_test, y_test")  # fmt: skip
    add("--method", nargs="+", choices=METHODS, default=list(METHODS),
        help="which descents (default: all three)")  # fmt: skip
    add("--epochs", type=positive, metavar="N",
        help="passes through the data (default: as many as each descent needs)")  # fmt: skip
    add("--hidden", type=positive, nargs="*", default=[64], metavar="N",
        help="units of the hidden layers (default: 64)")  # fmt: skip
    add("--seed", type=natural, default=0, metavar="N",
        help="of the weights, the batches and the split (default: 0)")  # fmt: skip
    add("--out", type=pathlib.Path, default="train_digits.png", metavar="FILE.png",
        help="where to save the picture of the loss curves (default: %(default)s)")  # fmt: skip
    return parser


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def natural(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to 2³² − 1")
    return int(text)


def progress_bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("epochs"),
        TimeRemainingColumn(),
        console=console,
    )


def table(results: dict[Method, Curves]) -> Table:
    grid = Table("descent", title="trained with hand-derived gradients", title_justify="left")
    for column in ("steps", "last loss", "test accuracy", "departure", "rounding"):
        grid.add_column(column, justify="right")
    grid.caption = (
        "last loss: the mean of the last hundredth of the steps\n"
        "departure: the largest distance of a loss from that of the twin trained with autodiff\n"
        "rounding: the same for a twin whose first weights were moved by one ulp"
    )
    grid.caption_justify = "left"
    for method, c in results.items():
        tail = c.hand[-max(1, c.hand.size // 100) :].mean()
        grid.add_row(
            method.title, f"{c.hand.size}", f"{tail:.4f}", f"{c.accuracy:.2%}",
            f"{c.departure:.1e} {'✓' if c.agree else '✗'}", f"{c.rounding:.1e}",
        )  # fmt: skip
    return grid


def picture(results: dict[Method, Curves], path: pathlib.Path) -> None:
    """The losses by hand over the epochs, autodiff's dashed on top, and below how far apart."""
    from matplotlib.figure import Figure

    figure = Figure((4.2 * len(results), 5.6), layout="constrained")
    rows = figure.subplots(2, len(results), sharex="col", sharey="row", squeeze=False)
    for (above, below), (method, c) in zip(rows.T, results.items(), strict=True):
        width = -(-c.hand.size // 250)  # steps to a point, so that a curve can be seen
        starts = np.arange(0, c.hand.size, width)
        sizes = np.diff(starts, append=c.hand.size)
        epochs = c.epochs[starts]
        of, mean = "at every step", ""
        if width > 1:
            of, mean = f"largest of {width} steps", ", their mean"
            above.fill_between(
                epochs, np.minimum.reduceat(c.hand, starts), np.maximum.reduceat(c.hand, starts),
                alpha=0.25, linewidth=0, label=f"least to {of}",
            )  # fmt: skip
        means = [np.add.reduceat(curve, starts) / sizes for curve in (c.hand, c.autodiff)]
        above.plot(epochs, means[0], linewidth=3, alpha=0.6, label=f"by hand{mean}")
        above.plot(epochs, means[1], "k--", linewidth=0.8, label=f"autodiff{mean}")
        above.set_yscale("log")
        above.set_title(f"{method.title}: {c.accuracy:.1%} of the test digits", fontsize=10)
        above.legend(fontsize=8, loc="lower left")
        apart = np.maximum.reduceat(np.abs(c.hand - c.autodiff), starts)
        below.plot(epochs, apart, ".", markersize=3, clip_on=False, label=of)
        told = "one ulp in the first weights leads to"
        below.axhline(c.rounding, color="gray", zorder=1, label=told)
        below.set_yscale("symlog", linthresh=1e-8)
        below.set_xlabel("epoch")
        below.legend(fontsize=8, loc="lower left")
    rows[0, 0].set_ylabel("loss")
    rows[1, 0].set_ylabel("|by hand − autodiff|")
    rows[1, 0].set_ylim(0, 4 * max(max(c.rounding, c.departure) for c in results.values()))
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    sys.exit(main())
