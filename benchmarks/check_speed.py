"""The checker's own figures: how fast it is, how often it errs, and how small an error it sees.

    python benchmarks/check_speed.py                     # a quarter of an hour; a page on stdout
    python benchmarks/check_speed.py --write             # the same to benchmarks/CHECKER.md
    python benchmarks/check_speed.py --only layers planted

Run it on a machine that does nothing else: the load before the run stands in the page.
"""

import argparse
import functools
import itertools
import os
import pathlib
import platform
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from handgrad import manual, reference
from handgrad.compare import cases, examine, suite
from handgrad.compare.cases import Case
from handgrad.compare.coverage import coverage

PAGE = pathlib.Path(__file__).with_name("CHECKER.md")
FIRST = ("activations", "dense", "losses", "networks")  # the topics that the 40 seconds are for
SCALES = (1e-3, 1.0, 1e2)
ERROR = 1e-9
Row = tuple[str, ...]


# --- one check of a function as large as a layer -------------------------------------------------
# Each makes, for a batch a little larger than its name says, new functions and their inputs.


def small_norm(more: int, rng: np.random.Generator) -> tuple[dict, Callable, Callable, list]:
    """layer norm, 8 × 64"""
    return layer_norm(more, rng, batch=8, features=64)


def layer_norm(
    more: int, rng: np.random.Generator, batch: int = 32, features: int = 1024
) -> tuple[dict, Callable, Callable, list]:
    """layer norm, 32 × 1024"""

    def normalised(x):
        centred = x - x.mean(-1, keepdims=True)
        sigma = jnp.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
        return centred / sigma, sigma

    def forward(x, gamma, beta):
        return gamma[None] * normalised(x)[0] + beta[None]

    def backward(x, gamma, beta, dy):
        x_hat, sigma = normalised(x)
        g = dy * gamma[None]
        mean, along = g.mean(-1, keepdims=True), (g * x_hat).mean(-1, keepdims=True)
        return (g - mean - x_hat * along) / sigma, (dy * x_hat).sum(0), dy.sum(0)

    args = [rng.normal(size=s) for s in ((batch + more, features), (features,), (features,))]
    return {"kind": "backward"}, backward, forward, args


def dense(more: int, rng: np.random.Generator) -> tuple[dict, Callable, Callable, list]:
    """dense, 64 × 256 → 128"""
    args = [rng.normal(size=s) for s in ((64 + more, 256), (256, 128), (128,))]
    return {}, *fresh("affine"), args


def cross_entropy(more: int, rng: np.random.Generator) -> tuple[dict, Callable, Callable, list]:
    """softmax cross entropy, 64 × 1000"""
    logits = rng.normal(size=(64 + more, 1000))
    labels = rng.integers(0, 1000, 64 + more).astype(np.int32)
    return {}, *fresh("softmax_cross_entropy_with_integer_labels"), [logits, labels]


def perceptron(more: int, rng: np.random.Generator) -> tuple[dict, Callable, Callable, list]:
    """perceptron with its loss, 32 × 64 → 64 → 32 → 10"""
    sizes = (64, 64, 32, 10)
    params = [
        (rng.normal(size=(n, m)) / n**0.5, rng.normal(size=m)) for n, m in itertools.pairwise(sizes)
    ]
    x, targets = rng.normal(size=(32 + more, 64)), rng.normal(size=(32 + more, 10))
    return {}, *fresh("mlp_loss"), [params, x, targets]


def lstm(more: int, rng: np.random.Generator) -> tuple[dict, Callable, Callable, list]:
    """LSTM, batch 4, 8 steps, 16 → 16"""
    shapes = ((4 + more, 8, 16), (4 + more, 16), (4 + more, 16), (16, 64), (16, 64), (64,))
    return {}, *fresh("lstm"), [*(rng.normal(size=s) / 2 for s in shapes), None]


LAYERS = (small_norm, layer_norm, dense, cross_entropy, perceptron, lstm)


def fresh(name: str) -> tuple[Callable, Callable]:
    """Both functions of a name, as objects that nothing has been remembered of."""
    by_hand, plain = getattr(manual, name), getattr(reference, name)
    return lambda *args: by_hand(*args), lambda *args: plain(*args)


def layers(progress: Progress, options: argparse.Namespace) -> Iterator[Row]:
    """Seconds for a check with new functions and shapes, and when it is repeated."""
    rng = np.random.default_rng(0)
    examine(*fresh("mse"), rng.normal(size=3), rng.normal(size=3))  # JAX begins
    for layer in progress.track(LAYERS, description="layers"):
        new, repeated = [], []
        for more in range(options.rounds):
            how, candidate, plain, args = layer(more, rng)
            args = jax.tree.map(lambda a: a if a.dtype.kind == "i" else a.astype(np.float32), args)
            check = functools.partial(examine, candidate, plain, *args, **how)
            new.append(seconds(check))
            repeated += [seconds(check) for _ in range(2)]
        title = (layer.__doc__ or "").strip()
        yield f"a check: {title}; new shapes", f"{statistics.median(new):.2f} s", "≤ 0.6 s"
        again = f"{1e3 * statistics.median(repeated):.0f} ms"
        yield f"a check: {title}; the same shapes again", again, "≤ 30 ms"


def seconds(check: Callable[[], Any]) -> float:
    start = time.perf_counter()
    report = check()
    taken = time.perf_counter() - start
    if not report.ok:
        raise SystemExit(f"a right derivation was found wrong, so its time says nothing:\n{report}")
    return taken


# --- the command, cold ---------------------------------------------------------------------------


def command(progress: Progress, options: argparse.Namespace) -> Iterator[Row]:
    """Seconds of `handgrad check` in a new process, imports and all."""
    runs = ((FIRST, "≤ 40 s"), (cases.TOPICS, ""))
    for topics, asked in progress.track(runs, description="the command"):
        program = (
            "import sys; from handgrad.compare import cases, cli; "
            f"cases.TOPICS = {topics!r}; sys.exit(cli.main(['check', '-j', '2']))"
        )
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=False
        )
        taken = time.perf_counter() - start
        if done.returncode:
            raise SystemExit(f"handgrad check failed:\n{done.stdout}{done.stderr}")
        what = ", ".join(topics) if topics == FIRST else "everything built in"
        counted = done.stdout.splitlines()[-1].split(" · ")[:2]
        of = f"{counted[0].partition(':')[0].lstrip('✓ ')}, {counted[1].removesuffix(' verified')}"
        yield f"`handgrad check`, cold: {what} ({of})", f"{taken:.1f} s", asked


# --- false alarms --------------------------------------------------------------------------------


def alarms(progress: Progress, options: argparse.Namespace) -> Iterator[Row]:
    """Right derivations that are called wrong, among seeded samples at three input scales."""
    items = suite.built_in()
    seeds = range(-(-options.samples // (len(items) * len(SCALES))))
    plan = [(item, seed, scale) for seed in seeds for item in items for scale in SCALES]
    plan = random.Random(0).sample(plan, options.samples)
    found = {scale: [] for scale in SCALES}
    for item, seed, scale in progress.track(plan, description="false alarms"):
        verdict = suite.examine(item, seed, scale)
        found[scale].append((item.id, seed, verdict))
    for scale, verdicts in found.items():
        wrong = [f"{name}, seed {seed}" for name, seed, verdict in verdicts if not verdict.ok]
        what = f"false alarms, inputs × {scale:g}"
        yield what, " ".join([f"{len(wrong)} of {len(verdicts)}", *named(wrong)]), "0"


# --- the smallest error --------------------------------------------------------------------------


def planted(progress: Progress, options: argparse.Namespace) -> Iterator[Row]:
    """Backward passes with one element wrong by 1e-9 of itself, and the same without."""
    caught, missed, alarmed, zero, kinks = 0, [], [], [], []
    for case in progress.track(cases.load(), description="planted errors"):
        args = case.draw()
        plain = functools.partial(getattr(reference, case.function), **case.config)
        right = examine(backward_of(case), plain, *args, kind="backward")
        if not right.ok:
            alarmed.append(case.id)
        for leaf, gradient in enumerate(gradients(case, args)):
            elements = np.argwhere(gradient)
            if not len(elements):
                zero.append(f"{case.id}, gradient {leaf}")
                continue
            rng = np.random.default_rng([leaf, *case.id.encode()])
            index = tuple(map(int, rng.choice(elements)))
            report = examine(backward_of(case, leaf, index), plain, *args, kind="backward")
            where = f"{case.id}, gradient {leaf} at {list(index)}"
            if not report.ok:
                caught += 1
            elif at_kinks(report) > at_kinks(right):
                kinks.append(where)
            else:
                missed.append(where)
    what = f"one element wrong by {ERROR:g} of itself: caught"
    total = caught + len(missed)
    yield what, " ".join([f"{caught} of {total}", *named(missed)]), "all"
    yield "the same without it: found wrong", " ".join([f"{len(alarmed)}", *named(alarmed)]), "0"
    what = "planted at a kink, between the one-sided derivatives, and reported as a convention"
    yield what, " ".join([f"{len(kinks)}", *named(kinks)]), ""
    yield "gradients that are zero everywhere, where none can be planted", f"{len(zero)}", ""


def at_kinks(report: Any) -> int:
    """How many elements of the gradients differ from autodiff's by a choice at a kink."""
    return sum(q.kinks for q in report.gradients)


def backward_of(case: Case, leaf: int = -1, index: tuple[int, ...] = ()) -> Callable[..., tuple]:
    """`backward(*args, dy)` of a case, by hand; with a leaf, one element of it is wrong."""
    op = getattr(manual, case.function)

    def backward(*args_and_dy):
        *args, dy = args_and_dy
        _, residuals = op.forward(*args, **case.config)
        cotangents = op.pullback(residuals, dy, **case.config)[: len(args)]  # not of those left out
        leaves, tree = jax.tree.flatten(cotangents)
        if leaf >= 0:
            leaves[leaf] = jnp.asarray(leaves[leaf]).at[index].multiply(1 + ERROR)
        return jax.tree.unflatten(tree, leaves)

    return backward


def gradients(case: Case, args: tuple) -> list[np.ndarray]:
    """The leaves of the cotangents in float64, with a random cotangent of the output."""
    rng = np.random.default_rng(0)
    op = functools.partial(getattr(manual, case.function).forward, **case.config)
    with jax.enable_x64(True):
        arrays = jax.tree.map(jnp.asarray, args)
        y, _ = jax.eval_shape(op, *arrays)
        dy = jax.tree.map(lambda s: jnp.asarray(rng.standard_normal(s.shape), s.dtype), y)
        return [np.asarray(leaf) for leaf in jax.tree.leaves(backward_of(case)(*arrays, dy))]


# --- coverage, and the search for what went wrong ------------------------------------------------


def explained(progress: Progress, options: argparse.Namespace) -> Iterator[Row]:
    """Seconds for the coverage of a derivation, and for mends and cut paths where it is wrong.

    The mistake is one that nothing explains, so that all is searched; what the check itself takes,
    measured on the right derivation, is subtracted.
    """
    taken: dict[str, float] = {}
    first = {case.function: case for case in reversed(cases.load())}
    for name, case in progress.track(sorted(first.items()), description="explanations"):
        args = case.draw()
        plain = functools.partial(getattr(reference, name), **case.config)
        start = time.perf_counter()
        coverage(backward_of(case), plain, *args, kind="backward")
        covered = time.perf_counter() - start
        check = seconds(
            functools.partial(examine, backward_of(case), plain, *args, kind="backward")
        )
        start = time.perf_counter()
        report = examine(spoilt(backward_of(case)), plain, *args, kind="backward")
        if report.ok and any(map(np.any, gradients(case, args))):
            raise SystemExit(f"{case.id}: a wrong derivation was found right")
        taken[name] = covered + max(time.perf_counter() - start - check, 0)
    slowest = sorted(taken, key=lambda name: -taken[name])[:5]
    what = f"coverage, mends and cut paths, cold: median of {len(taken)} functions"
    yield what, f"{statistics.median(taken.values()):.2f} s", "≤ 2 s"
    yield "the slowest", ", ".join(f"{name} {taken[name]:.0f} s" for name in slowest), ""


def spoilt(backward: Callable[..., tuple]) -> Callable[..., tuple]:
    """Wrong by a little everywhere, in a way that no single change mends."""

    def wrong(*args_and_dy):
        def bend(g):
            return g * (1 + 0.1 * jnp.cos(g)) if jnp.issubdtype(g.dtype, jnp.floating) else g

        return jax.tree.map(bend, backward(*args_and_dy))

    return wrong


# --- the page ------------------------------------------------------------------------------------


def named(names: list[str], most: int = 10) -> list[str]:
    """In brackets, and no more than ten."""
    rest = [f"and {len(names) - most} more"] * (len(names) > most)
    return [f"({'; '.join([*names[:most], *rest])})"] if names else []


def machine() -> str:
    """What the times depend on, in words."""
    load = os.getloadavg()[0]
    return (
        f"{platform.machine()}, {os.cpu_count()} cores, load {load:.1f} before the run; Python "
        f"{platform.python_version()}, JAX {jax.__version__}, NumPy {np.__version__}"
    )


def markdown(rows: list[Row], about: str) -> str:
    lines = [
        "# The checker's figures", "", "    python benchmarks/check_speed.py --write", "",
        f"{about}. Times of a check are medians.", "",
        "| what | measured | asked |", "| --- | ---: | ---: |",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


PARTS = {
    "layers": layers, "command": command, "explained": explained, "alarms": alarms,
    "planted": planted,
}  # fmt: skip


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--only", nargs="+", choices=PARTS, default=list(PARTS), help="these parts")
    add("--rounds", type=positive, default=7, help="of new shapes, for each layer (7)")
    add("--samples", type=positive, default=1000, help="in the search for false alarms (1000)")
    add("--write", action="store_true", help=f"write benchmarks/{PAGE.name} too")
    options = parser.parse_args(arguments)
    about = machine()
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    rows: list[Row] = []
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        for part in options.only:
            rows += PARTS[part](progress, options)
    page = markdown(rows, about)
    print(page, end="")
    if options.write:
        PAGE.write_text(page, "utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
