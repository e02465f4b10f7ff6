"""What the trainings of train_cnn.py and train_language_model.py have in common.

A network is trained with gradients by hand, its twin with autodiff from the same weights on the
same batches, and their losses are compared at every step. How far rounding alone leads is measured:
by a third training, with autodiff, from weights that were moved by one ulp.
"""

import argparse
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from handgrad.manual import optimizers

# How many times as far as the moved twin: that one is a single draw of what rounding can do.
ROUNDING = 10

PICTURES = (".png", ".svg", ".pdf")

Gradient = Callable[..., tuple[jax.Array, Any]]  # of the parameters and a batch


class Curves(NamedTuple):
    """The loss before every step of the three trainings, and what the first one ended with."""

    hand: np.ndarray  # (steps,)
    autodiff: np.ndarray  # (steps,)
    moved: np.ndarray  # (steps,), autodiff from weights moved by one ulp
    params: Any  # of the training by hand

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

    @property
    def last(self) -> float:
        """The mean of the last twentieth of the losses by hand."""
        return float(self.hand[-max(1, self.hand.size // 20) :].mean())


def train(
    by_hand: Gradient, by_autodiff: Gradient, start: Any, batches: Sequence[Any],
    learning_rate: float, key: jax.Array, advance: Callable[[], Any],
) -> Curves:  # fmt: skip
    """A step of Adam, by hand as well, for each of the batches."""
    adam = optimizers.adam(learning_rate)

    def through(gradient):
        def step(trained, batch):
            params, state = trained
            loss, slopes = gradient(params, *batch)
            updates, state = adam.update(slopes, state, params)
            return (jax.tree.map(jnp.add, params, updates), state), loss

        return jax.jit(step)

    hand, autodiff = through(by_hand), through(by_autodiff)
    trained = [(params, adam.init(params)) for params in (start, start, one_ulp_away(start, key))]
    losses: list[list[jax.Array]] = [[], [], []]
    for batch in batches:
        for i, step in enumerate((hand, autodiff, autodiff)):
            trained[i], loss = step(trained[i], batch)
            losses[i].append(loss)
        advance()
    curve, twin, moved = (np.asarray(values) for values in losses)
    return Curves(curve, twin, moved, trained[0][0])


def one_ulp_away(params: Any, key: jax.Array) -> Any:
    """Every number moved to its neighbour, up or down at random."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))
    moved = [
        jnp.nextafter(leaf, jnp.where(jax.random.bernoulli(k, shape=leaf.shape), jnp.inf, -jnp.inf))
        for leaf, k in zip(leaves, keys, strict=True)
    ]
    return jax.tree.unflatten(tree, moved)


def weights(key: jax.Array, *shape: int) -> jax.Array:
    """Gaussian, of variance one over the number of inputs: the product of all axes but the last."""
    return jax.random.normal(key, shape) / np.sqrt(np.prod(shape[:-1]))


# --- the command ---------------------------------------------------------------------------------


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--seed", type=natural, default=0, metavar="N",
        help="of the weights and the batches (default: 0)")  # fmt: skip
    name = pathlib.Path(parser.prog).with_suffix(".png")
    add("--out", type=picture_file, default=name, metavar="FILE.png",
        help="where to save the picture of the loss curves (default: %(default)s)")  # fmt: skip


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def natural(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to 2³² − 1")
    return int(text)


def picture_file(text: str) -> pathlib.Path:
    path = pathlib.Path(text)
    if path.suffix not in PICTURES:
        raise argparse.ArgumentTypeError(f"{text} must end in {', '.join(PICTURES)}")
    if not path.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {path.parent}")
    return path


def progress_bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
    )


def table(results: dict[str, Curves], extra: dict[str, dict[str, str]]) -> Table:
    """One row a network; `extra` has its further columns."""
    grid = Table("network", title="trained with hand-derived gradients", title_justify="left")
    more = list(dict.fromkeys(name for columns in extra.values() for name in columns))
    for column in ("steps", "first loss", "last loss", *more, "departure", "rounding"):
        grid.add_column("\n".join(column.rsplit(" ", 1)), justify="right")  # 80 columns hold it all
    for column in grid.columns:
        column.no_wrap = True
    grid.caption = (
        "last loss: the mean of the last twentieth of the steps\n"
        "departure: the largest distance of a loss from that of the twin trained with autodiff\n"
        "rounding: the same for a twin whose first weights were moved by one ulp"
    )
    grid.caption_justify = "left"
    for name, c in results.items():
        grid.add_row(
            name, f"{c.hand.size}", f"{c.hand[0]:.4f}", f"{c.last:.4f}",
            *(extra.get(name, {}).get(column, "") for column in more),
            f"{c.departure:.1e} {'✓' if c.agree else '✗'}", f"{c.rounding:.1e}",
        )  # fmt: skip
    return grid


def picture(results: dict[str, Curves], path: pathlib.Path) -> None:
    """The losses by hand, autodiff's dashed on top, and below how far apart they are."""
    from matplotlib.figure import Figure

    figure = Figure((4.2 * len(results), 5.6), layout="constrained")
    rows = figure.subplots(2, len(results), sharex="col", sharey="row", squeeze=False)
    for (above, below), (name, c) in zip(rows.T, results.items(), strict=True):
        above.plot(c.hand, linewidth=3, alpha=0.6, label="by hand")
        above.plot(c.autodiff, "k--", linewidth=0.8, label="autodiff")
        above.set_title(name, fontsize=10)
        above.legend(fontsize=8)
        below.plot(
            np.abs(c.hand - c.autodiff), ".", markersize=3, clip_on=False, label="at every step"
        )
        told = "one ulp in the first weights leads to"
        below.axhline(c.rounding, color="gray", zorder=1, label=told)
        below.set_yscale("symlog", linthresh=1e-8)
        below.set_xlabel("step")
        below.legend(fontsize=8)
    rows[0, 0].set_ylabel("loss")
    rows[1, 0].set_ylabel("|by hand − autodiff|")
    rows[1, 0].set_ylim(0, 4 * max(max(c.rounding, c.departure) for c in results.values()))
    figure.savefig(path, dpi=150)


def verdict(prog: str, results: dict[str, Curves]) -> str:
    """What to say of networks whose losses part by more than rounding; empty where none does."""
    astray = ", ".join(name for name, curves in results.items() if not curves.agree)
    return astray and f"{prog}: by hand and by autodiff part by more than rounding: {astray}"
