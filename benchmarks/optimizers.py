"""A jitted update of ten million float32 parameters, by hand and by optax, side by side.

    python benchmarks/optimizers.py            # a table
    python benchmarks/optimizers.py --json     # the same numbers

The two are timed in turns within one run; what counts is the ratio of their medians. Optax is
compiled and timed a second time beside them: its ratio to itself says how far to believe the other.
The memory is the compiler's own analysis of the temporary buffers, the state being donated.
"""

import argparse
import json
import statistics
import sys
import time

import jax
from rich.console import Console
from rich.progress import track
from rich.table import Table

from handgrad.manual import optimizers as manual
from handgrad.reference import optimizers as reference

WIDE = {"w": (2500, 4000)}  # ten million
THIN = {f"w{i}": (100, 10000) for i in range(10)}  # for Muon: its products grow with the short side

CASES = {
    "sgd": ((0.1,), {}),
    "momentum": ((0.1,), {}),
    "nesterov": ((0.1,), {}),
    "sgdw": ((0.1, 1e-4, 0.9), {}),
    "proximal_sgd": ((0.1, 1e-4), {}),
    "adagrad": ((0.1,), {}),
    "rmsprop": ((0.1,), {}),
    "rmsprop, centred, momentum": ((0.1,), {"centered": True, "momentum": 0.9}),
    "adadelta": ((), {}),
    "adam": ((0.1,), {}),
    "adamw": ((0.1,), {}),
    "amsgrad": ((0.1,), {}),
    "adamax": ((0.1,), {}),
    "nadam": ((0.1,), {}),
    "radam": ((0.1,), {}),
    "lion": ((0.1,), {}),
    "lamb": ((0.1,), {"weight_decay": 0.01}),
    "adafactor": ((0.1,), {}),
    "muon": ((0.1,), {}),
    "l2_gradient": ((0.1,), {}),
    "clip_by_value": ((0.1,), {}),
    "clip_by_norm": ((0.1,), {}),
    "clip_by_global_norm": ((0.1,), {}),
}


class Side:
    """One optimiser, compiled; `run` times one update."""

    def __init__(self, optimizer, params, grads):
        self.optimizer, self.params, self.grads = optimizer, params, grads
        update = jax.jit(optimizer.update, donate_argnums=1)
        self.update = update.lower(grads, optimizer.init(params), params).compile()
        self.temporary = self.update.memory_analysis().temp_size_in_bytes

    def restart(self):
        """A new state, in memory of its own: where it lies makes a difference to the time."""
        self.state = self.optimizer.init(self.params)
        self.run()

    def run(self):
        start = time.perf_counter()
        updates, self.state = self.update(self.grads, self.state, self.params)
        jax.block_until_ready((updates, self.state))
        return time.perf_counter() - start


def measure(name: str, rounds: int) -> dict:
    """Medians in seconds, their ratio, and temporary bytes, of both."""
    constructor = name.partition(",")[0]
    args, options = CASES[name]
    shapes = THIN if constructor == "muon" else WIDE
    params, grads = (
        {name: jax.random.normal(jax.random.key(seed), shape) for name, shape in shapes.items()}
        for seed in (0, 1)
    )
    sides = [
        Side(getattr(room, constructor)(*args, **options), params, grads)
        for room in (manual, reference, reference)
    ]
    times = [[], [], []]
    for i in range(rounds):
        turn = (0, 1, 2) if i % 2 else (2, 1, 0)
        if i % 5 == 0:
            for which in turn:
                sides[which].restart()
        for which in turn:
            times[which].append(sides[which].run())
    ours, theirs, again = map(statistics.median, times)
    return {
        "optimizer": name,
        "manual_s": ours,
        "optax_s": theirs,
        "ratio": ours / theirs,
        "noise": again / theirs,
        "manual_temporary": sides[0].temporary,
        "optax_temporary": sides[1].temporary,
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--rounds", type=int, default=25, help="timed updates of each (25)")
    parser.add_argument("names", nargs="*", help="only these optimisers")
    given = parser.parse_args(arguments)
    if given.rounds < 1:
        parser.error("--rounds must be at least 1")
    unknown = set(given.names) - CASES.keys()
    if unknown:
        parser.error(
            f"no such optimiser: {'; '.join(sorted(unknown))}; there are: {'; '.join(CASES)}"
        )
    names = given.names or list(CASES)
    console = Console(stderr=True)
    rows = [measure(name, given.rounds) for name in track(names, "updates", console=console)]
    about = {
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
        "parameters": 10_000_000,
        "rounds": given.rounds,
    }
    if given.json:
        json.dump({**about, "rows": rows}, sys.stdout, indent=1)
        print()
        return 0
    table = Table(title=f"one update of 10 million float32 parameters ({about['device']})")
    for column in (
        "optimiser",
        "by hand, ms",
        "optax, ms",
        "ratio",
        "optax to itself",
        "temporary, MB",
        "optax, MB",
    ):
        table.add_column(column, justify="left" if column == "optimiser" else "right")
    for row in rows:
        table.add_row(
            row["optimizer"],
            f"{1e3 * row['manual_s']:.1f}",
            f"{1e3 * row['optax_s']:.1f}",
            f"{row['ratio']:.2f}",
            f"{row['noise']:.2f}",
            f"{row['manual_temporary'] / 1e6:.1f}",
            f"{row['optax_temporary'] / 1e6:.1f}",
        )
    Console().print(table)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
