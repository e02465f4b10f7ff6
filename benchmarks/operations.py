"""Value and gradient of every operation, by hand and by jitted autodiff of the plain function.

    python benchmarks/operations.py                  # everything, a Markdown table
    python benchmarks/operations.py -k lstm          # what has lstm in its name
    python benchmarks/operations.py --write          # the table also to benchmarks/OPERATIONS.md

The two are timed in turns within one process, in both orders, on inputs drawn anew. In its turn
each runs a few times in a row, as in training: what counts is the ratio of the medians of all calls
but the first, which pays for what the other has left, cold caches and memory that was given back to
the system. Where a process happens to put its arrays, and when its threads fall asleep, moves the
ratio of two programs of a millisecond by a tenth, all through that process; so all is measured in
several processes, one after the other, and the table has their median and the least and the
greatest of them. One process more may use one core only, where threads do not wait for each other:
its ratio is that of the work, and comes again to a hundredth. The memory is the compiler's own
analysis of the temporary buffers.
"""

import argparse
import dataclasses
import functools
import itertools
import multiprocessing
import os
import pathlib
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from rich.console import Console
from rich.progress import track
from sizes import LARGE, NETWORKS, SIZES, drawn, weights

from handgrad import manual, reference
from handgrad.compare.cases import Case
from handgrad.reference import sequences as SEQUENCES

FILE = pathlib.Path(__file__).parent / "OPERATIONS.md"
SECONDS = 1.0  # at least of timed calls for what is soon done, up to twenty times the rounds
IN_A_ROW = 3  # calls that count, in a turn


@dataclasses.dataclass(frozen=True)
class Row:
    name: str
    hand: Callable
    auto: Callable
    draw: Callable[[int], tuple]  # the positional arguments, of a seed
    least: float = 1 / 1.1  # autodiff's time over ours must not be less
    memory: float | None = None  # our temporary bytes over autodiff's must not be more


def arrays(seed: int, *shapes: tuple[int, ...]) -> list[jax.Array]:
    """Of variance 1, and for matrices one over the number of rows."""
    keys = jax.random.split(jax.random.key(seed), len(shapes))
    return [
        jax.random.normal(key, shape) / (shape[0] ** 0.5 if len(shape) == 2 else 1)
        for key, shape in zip(keys, shapes, strict=True)
    ]


# --- the sizes that the catalogue promises something for -----------------------------------------


def scanned(cell: str, x: jax.Array, state: tuple, *weights: jax.Array) -> jax.Array:
    """The plain net as its user would write it: one `lax.scan`, the input's product inside."""
    step_by = SEQUENCES._CELLS[cell]

    def step(state, xt):
        state = step_by(state, xt, *weights)
        return state, state[0]

    return jnp.swapaxes(lax.scan(step, state, jnp.swapaxes(x, 0, 1))[1], 0, 1)


def recurrent(name, hand, cell, steps, gates, states, least, memory=None) -> Row:
    batch, features, hidden = 32, 128, 256

    def draw(seed):
        shapes = [(batch, steps, features), *[(batch, hidden)] * states, (features, gates * hidden),
                  (hidden, gates * hidden), (gates * hidden,)]  # fmt: skip
        return tuple(arrays(seed, *shapes))

    def auto(x, *rest):
        return scanned(cell, x, rest[:states], *rest[states:])

    return Row(f"{name}, T={steps}, B=32, I=128, H=256", hand, auto, draw, least, memory)


def lstm(*args):
    return manual.lstm(*args, None)[0]


def layer(columns: int, features: int = 128) -> tuple:
    """The shapes of the input, the state and the weights, for `drawn`."""
    ways = (weights(features, columns), weights(256, columns), (columns,))
    return (32, 64, features), ((32, 256), (32, 256)), ways


def two(first: tuple, second: tuple) -> tuple:
    (x, *a), (_, *b) = first, second
    return (x, *zip(a, b, strict=True))


def both_ways(x, states, weights):
    back = scanned("lstm", x[:, ::-1], states[1], *weights[1])[:, ::-1]
    return jnp.concatenate([scanned("lstm", x, states[0], *weights[0]), back], -1)


def one_on_the_other(x, states, weights):
    for state, w in zip(states, weights, strict=True):
        x = scanned("lstm", x, state, *w)
    return x


def classes(seed):
    x, w, b = arrays(seed, (1024, 256), (256, 16384), (16384,))
    return x, w, b, jax.random.randint(jax.random.key(seed), (1024,), 0, 16384)


def heads(length, seed):
    return tuple(arrays(seed, *[(4, length, 64)] * 3))


PROMISED = [
    recurrent("rnn", manual.rnn, "tanh", 64, 1, 1, 1.5),
    recurrent("rnn", manual.rnn, "tanh", 512, 1, 1, 1.5),
    recurrent("lstm", lstm, "lstm", 128, 4, 2, 1.4, 1.0),
    recurrent("gru", manual.gru, "gru", 128, 3, 1, 1.4, 1.0),
    Row(
        "gru_reset_after, T=64, B=32, I=128, H=256",
        manual.gru_reset_after,
        lambda x, h, *w: scanned("gru_reset_after", x, (h,), *w),
        functools.partial(drawn, (*layer(768)[:1], layer(768)[1][0], *layer(768)[2], (256,))),
    ),
    Row(
        "bidirectional, lstm, T=64, B=32, I=128, H=256",
        lambda *args: manual.bidirectional(*args)[0],
        both_ways,
        functools.partial(drawn, two(layer(1024), layer(1024))),
    ),
    Row(
        "stacked, 2 lstm, T=64, B=32, I=128, H=256",
        lambda x, states, weights: manual.stacked(x, list(states), list(weights))[0],
        one_on_the_other,
        functools.partial(drawn, two(layer(1024), layer(1024, 256))),
    ),
    Row(
        "linear_softmax_cross_entropy, N=1024, D=256, V=16384",
        manual.linear_softmax_cross_entropy,
        reference.linear_softmax_cross_entropy,
        classes,
        1.6,
        0.25,
    ),
    Row(
        "blockwise_attention, 4 heads, T=2048, d=64",
        manual.blockwise_attention,
        reference.blockwise_attention,
        functools.partial(heads, 2048),
        1.0,
        0.25,
    ),
    Row(
        "attention, 4 heads, T=1024, d=64",
        functools.partial(manual.attention, causal=True),
        functools.partial(reference.attention, causal=True),
        functools.partial(heads, 1024),
    ),
]


# --- every other one, at the size of `sizes.py` --------------------------------------------------


@functools.cache
def rows() -> list[Row]:
    sized = (_operation(name, *size) for table in (SIZES, LARGE) for name, size in table.items())
    return [*PROMISED, *sized, *map(_network, NETWORKS.values())]


def _operation(name: str, arguments: tuple, options: dict) -> Row:
    shapes = jax.eval_shape(lambda: drawn(arguments, 0))
    sizes = ", ".join("×".join(map(str, leaf.shape)) for leaf in jax.tree.leaves(shapes))
    return Row(f"{name}, {sizes}", *_both(name, options), functools.partial(drawn, arguments))


def _network(case: Case) -> Row:
    def draw(seed):
        return jax.tree.map(_single, case.draw(seed))

    name = f"{case.function}, {case.label}"
    return Row(name, *_both(case.function, case.config), draw)


def _both(name: str, options: dict[str, Any]) -> list[Callable]:
    options = {key: made() if callable(made) else made for key, made in options.items()}
    return [functools.partial(getattr(room, name), **options) for room in (manual, reference)]


def _single(drawn: np.ndarray) -> jax.Array:
    return jnp.asarray(drawn, jnp.float32 if drawn.dtype.kind == "f" else None)


# --- measuring -----------------------------------------------------------------------------------


class Side:
    """One function with its gradient, compiled; `run` times one call."""

    def __init__(self, f: Callable, args: tuple, dy: Any):
        def run(args, dy):
            y, vjp = jax.vjp(f, *args)
            gradient = [g for g in jax.tree.leaves(vjp(dy)) if g.dtype != jax.dtypes.float0]
            return y, gradient

        self.compiled = jax.jit(run).lower(args, dy).compile()
        self.temporary = self.compiled.memory_analysis().temp_size_in_bytes
        self.times: list[float] = []

    def turn(self, inputs: list[tuple], dy: Any, start: int) -> None:
        turn = [self.run(inputs[(start + k) % len(inputs)], dy) for k in range(1 + IN_A_ROW)]
        self.times.extend(turn[1:])

    def run(self, args: tuple, dy: Any) -> float:
        """Its seconds."""
        start = time.perf_counter()
        jax.block_until_ready(self.compiled(args, dy))
        return time.perf_counter() - start


def measure(name: str, rounds: int) -> dict[str, Any]:
    """The figures of a row in this process, and its bounds."""
    (row,) = (row for row in rows() if row.name == name)
    inputs = [row.draw(seed) for seed in range(3)]
    shapes = jax.eval_shape(row.auto, *inputs[0])
    dy = jax.tree.map(lambda s: jax.random.normal(jax.random.key(9), s.shape, s.dtype), shapes)
    hand, auto = (Side(f, inputs[0], dy) for f in (row.hand, row.auto))
    for side in (hand, auto):
        side.run(inputs[0], dy)
    once = sum(side.run(inputs[0], dy) for side in (hand, auto))
    rounds = max(rounds, min(20 * rounds, int(SECONDS / once / (1 + IN_A_ROW))))
    # whoever is first in a round finds its inputs out of the caches: each as often as the other
    for i in range(rounds + rounds % 2):
        for side in (auto, hand) if i % 2 else (hand, auto):
            side.turn(inputs, dy, i)
    return {
        "ours": statistics.median(hand.times),
        "autodiff": statistics.median(auto.times),
        "ratio": statistics.median(auto.times) / statistics.median(hand.times),
        "temporary": hand.temporary,
        "of_autodiff": auto.temporary,
        "least": row.least,
        "memory": row.memory,
    }


def process(platform: str | None, one_core: bool = False) -> Any:
    """A fresh one, which takes calls. What is measured and asked is so only in such: this one has
    no device of its own, whose memory it would keep from them.
    """
    # started anew, not a copy of this one: a copy has no threads left that could compute
    return multiprocessing.get_context("spawn").Pool(1, _on, (platform, one_core))


def _on(platform: str | None, one_core: bool) -> None:
    if one_core:  # before JAX starts as many threads as there are cores for it
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    if platform:
        jax.config.update("jax_platforms", "cpu" if platform == "cpu" else f"{platform},cpu")


def _device(platform: str | None) -> tuple[str, bool]:
    """Its kind, and whether it is a processor of which one core can be taken for itself."""
    (device, *_) = jax.devices(platform)
    return device.device_kind, device.platform == "cpu" and hasattr(os, "sched_setaffinity")


def _names(pattern: str) -> list[str]:
    return [row.name for row in rows() if pattern in row.name]


def sweep(
    names: list[str], rounds: int, platform: str | None, one_core: bool
) -> Iterator[dict[str, Any]]:
    """The figures of every row, in one process."""
    with process(platform, one_core) as one:
        yield from one.imap(functools.partial(measure, rounds=rounds), names)


def head(device: str, processes: int) -> str:
    return (
        f"Made by `python benchmarks/operations.py --write`: {device}, jax {jax.__version__}, "
        f"float32. The ratio is autodiff's time over ours: the median of {processes} processes, "
        "then the least and the greatest of them; on one core, of one process that may use no "
        "other. What is not promised more has the bound 1 / 1.1: no slower by more than a tenth. "
        "From table to table the ratios of what takes up to some milliseconds move by a few "
        "hundredths: a product waits longer for a second thread that has fallen asleep than for "
        "one at work. On one core nothing waits, and they come again to a hundredth: there the "
        "work alone is compared. What ours has more of it, a nonlinearity has for its digits: "
        "1 − y² has none where the function saturates. The bounds are those of all cores.\n\n"
        "| operation | by hand, ms | autodiff, ms | ratio | in processes | on one core | "
        "temporary, MB | autodiff's, MB | bound | kept |\n"
        "|---|---:|---:|---:|---:|---:|---:|---:|---|---|\n"
    )


def line(name: str, measured: list[dict], on_one_core: dict | None = None) -> str:
    least, memory = measured[0]["least"], measured[0]["memory"]
    figures = ("ours", "autodiff", "ratio", "temporary", "of_autodiff")
    r = {figure: statistics.median(m[figure] for m in measured) for figure in figures}
    ratios = [m["ratio"] for m in measured]
    kept = r["ratio"] >= least and (memory is None or r["temporary"] <= memory * r["of_autodiff"])
    bound = f"≥ {least:.2f}×" + (f", ≤ {memory:g} memory" if memory else "")
    one_core = f"{on_one_core['ratio']:.2f}×" if on_one_core else "–"
    cells = (
        name, f"{1e3 * r['ours']:.2f}", f"{1e3 * r['autodiff']:.2f}", f"{r['ratio']:.2f}×",
        f"{min(ratios):.2f}–{max(ratios):.2f}", one_core,
        f"{r['temporary'] / 1e6:.1f}", f"{r['of_autodiff'] / 1e6:.1f}",
        bound, "yes" if kept else "**no**",
    )  # fmt: skip
    return f"| {' | '.join(cells)} |\n"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--platform", default=None, help="cpu, gpu or tpu (default: what JAX takes)"
    )
    parser.add_argument("-k", metavar="PATTERN", default="", help="only what has it in its name")
    parser.add_argument(
        "--rounds", type=int, default=6, help="turns of each in a process, at least (6)"
    )
    parser.add_argument("--processes", type=int, default=5, help="one after the other (5)")
    parser.add_argument("--write", action="store_true", help=f"write the table to {FILE.name} too")
    given = parser.parse_args(arguments)
    if given.rounds < 1 or given.processes < 1:
        parser.error("--rounds and --processes must be at least 1")
    with process(given.platform) as one:
        try:
            device, has_cores = one.apply(_device, (given.platform,))
        except RuntimeError as error:
            parser.error(f"there is no {given.platform or 'such'} platform here: {error}")
        names = one.apply(_names, (given.k,))
    if not names:
        parser.error(f"nothing has {given.k!r} in its name")
    alone = [False] * given.processes + [True] * has_cores
    sweeps = (sweep(names, given.rounds, given.platform, one_core) for one_core in alone)
    every = itertools.chain.from_iterable(sweeps)
    total = len(names) * len(alone)
    found = list(track(every, "operations", total, console=Console(stderr=True)))
    table = head(device, given.processes)
    for i, name in enumerate(names):
        measured = found[i :: len(names)]
        table += line(name, measured[: given.processes], *measured[given.processes :])
    sys.stdout.write(table)
    if given.write:
        FILE.write_text(f"# Gradients by hand against autodiff\n\n{table}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
