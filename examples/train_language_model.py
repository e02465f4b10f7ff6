"""Train language models on this repository's own text with gradients derived by hand alone.

    python examples/train_language_model.py

An LSTM and a transformer as GPT-2 learn to predict the next byte; the loss curves are saved as a
picture. Beside each a twin is trained with autodiff, and the two must agree at every step within
rounding: twins.py has how that is measured.
"""

import argparse
import functools
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import twins
from extras import need
from rich.console import Console

from handgrad import manual, reference

ROOT = pathlib.Path(__file__).parents[1]
BYTES = 256
HEADS = 4


class Model(NamedTuple):
    by_hand: twins.Gradient
    by_autodiff: twins.Gradient
    first_weights: Callable[[int, int, jax.Array], Any]  # of width, time, key
    learning_rate: float


# --- the two models ------------------------------------------------------------------------------


def lstm_by_hand(params: Any, tokens: jax.Array, targets: jax.Array) -> tuple[jax.Array, Any]:
    loss, (gradient, *_) = manual.recurrent_lm_loss.value_and_gradient(
        params, states(params, tokens), tokens, targets
    )
    return loss, gradient


def lstm_by_autodiff(params: Any, tokens: jax.Array, targets: jax.Array) -> tuple[jax.Array, Any]:
    """Of the net as its user would write it; that of the reference, unrolled, compiles slowly."""

    def loss(params):
        (wx, wh, b), (start,) = params["layers"][0], states(params, tokens)

        def step(state, x):
            h, c = state
            i, f, g, o = jnp.split(x @ wx + h @ wh + b[None], 4, -1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        _, h = jax.lax.scan(step, start, params["table"][tokens.T])  # (time, batch, width)
        log_p = jax.nn.log_softmax(h @ params["w"] + params["b"][None, None])
        return -jnp.take_along_axis(log_p, targets.T[..., None], -1).mean()

    return jax.value_and_grad(loss)(params)


def states(params: Any, tokens: jax.Array) -> list[tuple[jax.Array, jax.Array]]:
    """h and c to begin with, zero, for each layer."""
    zero = jnp.zeros((tokens.shape[0], params["w"].shape[0]))
    return [(zero, zero)] * len(params["layers"])


def lstm_weights(width: int, time: int, key: jax.Array) -> Any:
    table, wx, wh, w = jax.random.split(key, 4)
    gates = 4 * width
    layer = twins.weights(wx, width, gates), twins.weights(wh, width, gates), jnp.zeros(gates)
    return {
        "table": jax.random.normal(table, (BYTES, width)),
        "layers": [layer],
        "w": twins.weights(w, width, BYTES),
        "b": jnp.zeros(BYTES),
    }


def gpt_by_hand(params: Any, tokens: jax.Array, targets: jax.Array) -> tuple[jax.Array, Any]:
    loss, (gradient, *_) = manual.gpt_loss.value_and_gradient(params, tokens, targets, heads=HEADS)
    return loss, gradient


def gpt_by_autodiff(params: Any, tokens: jax.Array, targets: jax.Array) -> tuple[jax.Array, Any]:
    return jax.value_and_grad(reference.gpt_loss)(params, tokens, targets, heads=HEADS)


def gpt_weights(width: int, time: int, key: jax.Array) -> Any:
    table, positions, first, second = jax.random.split(key, 4)

    def norm():
        return jnp.ones(width), jnp.zeros(width)

    def block(key):  # a bias of the keys would have no gradient but rounding, which Adam scales up
        q, k, v, o, up, down = jax.random.split(key, 6)
        return {
            "norm1": norm(),
            "attention": (*(twins.weights(a, width, width) for a in (q, k, v, o)),
                          jnp.zeros(width), None, jnp.zeros(width), jnp.zeros(width)),
            "norm2": norm(),
            "up": (twins.weights(up, width, 4 * width), jnp.zeros(4 * width)),
            "down": (twins.weights(down, 4 * width, width), jnp.zeros(width)),
        }  # fmt: skip

    return {
        "table": 0.1 * jax.random.normal(table, (BYTES, width)),
        "positions": 0.1 * jax.random.normal(positions, (time, width)),
        "blocks": [block(first), block(second)],
        "norm": norm(),
    }


MODELS = {
    "lstm": Model(lstm_by_hand, lstm_by_autodiff, lstm_weights, 1e-2),
    "transformer": Model(gpt_by_hand, gpt_by_autodiff, gpt_weights, 3e-3),
}


# --- the text ------------------------------------------------------------------------------------


def text() -> np.ndarray:
    """The bytes of the README and of the code by hand, file after file."""
    files = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "manual").glob("*.py"))]
    return np.frombuffer(b"\n".join(file.read_bytes() for file in files), np.uint8)


def batches(source: np.ndarray, steps: int, batch: int, time: int, seed: int) -> list[tuple]:
    """Pieces from random places: tokens (batch, time), and the bytes one place later."""
    rng = np.random.default_rng(seed)
    starts = rng.integers(len(source) - time, size=(steps, batch, 1))
    pieces = jnp.asarray(source[starts + np.arange(time + 1)], jnp.int32)
    return [(piece[:, :-1], piece[:, 1:]) for piece in pieces]


# --- the command ---------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="train_language_model.py",
        description="Train an LSTM and a transformer on the bytes of this repository's own text "
        "with hand-derived gradients only, beside twins trained with autodiff. Exit code 0: their "
        "losses agree at every step within rounding; 1: they do not.",
    )
    add = parser.add_argument
    add("--model", nargs="+", choices=MODELS, default=list(MODELS),
        help="which (default: both)")  # fmt: skip
    for name, default, what in (
        ("steps", 300, "steps of Adam"),
        ("batch", 16, "pieces of text in a step"),
        ("time", 64, "bytes in a piece"),
        ("width", 64, "numbers that stand for a byte, a multiple of 4"),
    ):
        add(f"--{name}", type=twins.positive, default=default, metavar="N",
            help=f"{what} (default: {default})")  # fmt: skip
    twins.add_options(parser)
    options = parser.parse_args(arguments)
    if options.width % HEADS:
        parser.error(f"--width is {options.width}; it must be a multiple of {HEADS}")
    source = text()
    if options.time >= len(source):
        parser.error(f"--time is {options.time}, and the text has {len(source)} bytes")
    need(__file__, "matplotlib")
    console = Console()
    console.print(
        f"{len(source)} bytes of text; {options.batch} pieces of {options.time} a step; width "
        f"{options.width}; seed {options.seed}; {jax.default_backend()}"
    )
    pieces = batches(source, options.steps, options.batch, options.time, options.seed)
    results = {}
    with twins.progress_bar(console) as progress:
        for name in options.model:
            model = MODELS[name]
            weights_key, nudge_key = jax.random.split(jax.random.key(options.seed))
            task = progress.add_task(name, total=len(pieces))
            results[name] = twins.train(
                model.by_hand, model.by_autodiff,
                model.first_weights(options.width, options.time, weights_key),
                pieces, model.learning_rate, nudge_key, functools.partial(progress.advance, task),
            )  # fmt: skip
    bits = {name: {"bits a byte": f"{c.last / np.log(2):.2f}"} for name, c in results.items()}
    console.print(twins.table(results, bits))
    twins.picture(results, options.out)
    console.print(f"the curves are in {options.out}", soft_wrap=True)
    if astray := twins.verdict(parser.prog, results):
        print(astray, file=sys.stderr)
    return 1 if astray else 0


if __name__ == "__main__":
    sys.exit(main())
