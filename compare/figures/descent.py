"""D1: batch descent is smooth, single samples are noisy, mini-batches lie between; all descend."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from handgrad.compare.figures.result import Result, axes, save
from handgrad.manual.descent import batch_descent, minibatch_descent, stochastic_descent
from handgrad.manual.networks import init_mlp, mlp, mlp_loss
from handgrad.manual.quick import compiled

SAMPLES, EPOCHS, SMALL = 512, 10, 32
CONFIG = {"loss": "softmax_cross_entropy_with_integer_labels", "reduction": "mean"}


def digits() -> tuple[jax.Array, jax.Array]:
    """Real handwritten digits, 8×8, that come with scikit-learn."""
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "the digits come with scikit-learn, which is not installed: "
            "pip install 'handgrad[examples]'"
        ) from error
    images, labels = load_digits(return_X_y=True)
    return jnp.asarray(images[:SAMPLES] / 16, jnp.float32), jnp.asarray(labels[:SAMPLES], jnp.int32)


def roughness(losses: np.ndarray) -> float:
    """The mean jump from step to step, over the mean loss, in the second half."""
    late = losses[len(losses) // 2 :]
    return float(np.abs(np.diff(late)).mean() / late.mean())


def run(seed: int = 0) -> Result:
    """The same net from the same start, as many epochs each; batch descent takes longer steps."""
    x, y = digits()
    keys = jax.random.split(jax.random.key(seed))
    start = init_mlp((64, 32, 10), key=keys[0])
    kinds = {
        "batch": compiled(
            lambda p: batch_descent(
                mlp_loss, p, x, y, learning_rate=0.5, epochs=20 * EPOCHS, **CONFIG
            )
        ),
        "mini-batch": compiled(
            lambda p: minibatch_descent(
                mlp_loss, p, x, y, learning_rate=0.2, epochs=EPOCHS, batch_size=SMALL,
                key=keys[1], **CONFIG,
            )
        ),
        "stochastic": compiled(
            lambda p: stochastic_descent(
                mlp_loss, p, x, y, learning_rate=0.03, epochs=EPOCHS, key=keys[1], **CONFIG
            )
        ),
    }  # fmt: skip
    losses, rough, accuracy, final = {}, {}, {}, {}
    for name, train in kinds.items():
        params, history = train(start)
        losses[name] = np.asarray(history)
        rough[name] = roughness(losses[name])
        accuracy[name] = float((mlp(params, x).argmax(-1) == y).mean())
        final[name] = float(mlp_loss(params, x, y, **CONFIG))
    return Result(
        claim="D1",
        source="“The Math Behind Deep Learning” (ch. 14), eq. 14.168–14.171",
        statement="batch descent is smooth, mini-batches noisy, one sample noisier",
        holds=rough["batch"] < 0.1 < rough["mini-batch"] < rough["stochastic"]
        and max(final.values()) < losses["batch"][0] / 5
        and min(accuracy.values()) > 0.95,
        measured={f"roughness, {name}": value for name, value in rough.items()}
        | {f"final loss, {name}": value for name, value in final.items()}
        | {f"accuracy, {name}": value for name, value in accuracy.items()},
        curves=losses,
    )


def draw(result: Result, path: str | Path) -> None:
    """The loss of every step's batch."""
    figure, ax = axes(result, xlabel="share of the training", ylabel="loss of the step's batch")
    for name in ("stochastic", "mini-batch", "batch"):
        losses = result.curves[name]
        ax.semilogy(np.linspace(0, 1, len(losses)), np.maximum(losses, 1e-4), lw=0.8, label=name)
    ax.legend()
    save(figure, path)
