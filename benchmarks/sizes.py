"""What `operations.py` times: each operation at a size at which it costs something.

A row is the operation's positional arguments, a shape for what is drawn from a normal distribution
(matrices of the variance that keeps it), else a function of a key, and its options. Networks are
cases as those of the tests, only larger.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from handgrad.compare.cases import Case, labels, normal, uniform
from handgrad.compare.cases.autoencoders import model as autoencoder
from handgrad.compare.cases.image_models import convolution
from handgrad.compare.cases.language_models import model as recurrent_model
from handgrad.compare.cases.networks import layers
from handgrad.compare.cases.sequences import state
from handgrad.compare.cases.transformers import gpt, gpt_model, llama, matrix

__all__ = ["LARGE", "NETWORKS", "SIZES", "drawn"]

Argument = tuple | Callable


def drawn(arguments: tuple, seed: int) -> tuple:
    """The arguments of a row, of a seed; containers are walked."""
    keys = iter(jax.random.split(jax.random.key(seed), 64))

    def draw(a):
        if callable(a):
            return a(next(keys))
        if isinstance(a, dict):
            return {name: draw(part) for name, part in a.items()}
        if isinstance(a, list) or not all(isinstance(n, int) for n in a):
            return type(a)(draw(part) for part in a)
        return jax.random.normal(next(keys), a)

    return tuple(draw(a) for a in arguments)


def weights(*shape: int) -> Callable:
    return lambda key: jax.random.normal(key, shape) / shape[0] ** 0.5


def directions(*shape: int) -> Callable:
    """Rows of length one, whose products are cosines."""

    def draw(key):
        x = jax.random.normal(key, shape)
        return x / jnp.linalg.norm(x, axis=-1, keepdims=True)

    return draw


def chances(*shape: int) -> Callable:
    return lambda key: jax.random.uniform(key, shape, minval=0.05, maxval=0.95)


def bits(*shape: int) -> Callable:
    return lambda key: jax.random.bernoulli(key, 0.5, shape).astype(jnp.float32)


def signs(*shape: int) -> Callable:
    return lambda key: 2 * bits(*shape)(key) - 1


def distributions(*shape: int) -> Callable:
    return lambda key: jax.nn.softmax(jax.random.normal(key, shape))


def integers(limit: int, *shape: int) -> Callable:
    return lambda key: jax.random.randint(key, shape, 0, limit)


ROWS = (1024, 1024)
IMAGES = (32, 28, 28, 16)
LABELS = integers(1024, 1024)
KEY = functools.partial(jax.random.key, 0)  # an option too is made when it is asked for

SIZES: dict[str, tuple[tuple[Argument, ...], dict]] = {
    **{
        name: ((ROWS,), {})
        for name in (
            "celu elu gelu hard_sigmoid hard_swish hard_tanh identity l1_penalty l2_normalize "
            "l2_penalty elastic_net leaky_relu log_sigmoid log_softmax log_sum_exp mish relu relu6 "
            "selu sigmoid sign silu softmax softplus softsign soft_threshold squareplus step tanh "
            "glu"
        ).split()
    },
    **{
        name: ((ROWS, ROWS), {})
        for name in (
            "cosine_similarity_loss gaussian_kl geglu half_squared_error huber "
            "kl_divergence_with_logits log_cosh mae mse smooth_l1 squared_error swiglu "
            "total_squared_error"
        ).split()
    },
    **{
        name: ((ROWS, ROWS, ROWS), {})
        for name in ("gaussian_nll", "reparametrize", "triplet_margin")
    },
    **{
        name: ((ROWS, LABELS), {})
        for name in (
            "label_smoothing_cross_entropy",
            "softmax_cross_entropy_with_integer_labels",
            "multiclass_hinge",
        )
    },
    **{name: ((ROWS, signs(*ROWS)), {}) for name in ("hinge", "squared_hinge")},
    "binary_cross_entropy_with_logits": ((ROWS, bits(*ROWS)), {}),
    "focal_loss_with_logits": ((ROWS, integers(2, *ROWS)), {}),
    "prelu": ((ROWS, (1024,)), {}),
    "binary_cross_entropy": ((chances(*ROWS), bits(*ROWS)), {}),
    "categorical_cross_entropy": ((distributions(*ROWS), distributions(*ROWS)), {}),
    "kl_divergence": ((distributions(*ROWS), distributions(*ROWS)), {}),
    "softmax_cross_entropy": ((ROWS, distributions(*ROWS)), {}),
    "info_nce": ((directions(256, 512), directions(256, 512)), {"symmetric": True}),
    "elbo": (((512, 784), bits(512, 784), (512, 32), (512, 32)), {}),
    "affine": (((512, 512), weights(512, 1024), (1024,)), {}),
    "affine_absorbed": (((512, 511), weights(512, 1024)), {}),
    "bilinear": (((256, 64), (256, 32), weights(64, 32, 128), (128,)), {}),
    "tied_autoencoder": (((512, 784), weights(784, 256), (256,), (784,)), {}),
    **{name: ((ROWS, (1024,), (1024,)), {}) for name in ("batch_norm", "layer_norm")},
    "batch_norm_inference": ((ROWS, (1024,), (1024,), (1024,), chances(1024)), {}),
    "rms_norm": ((ROWS, (1024,)), {}),
    "group_norm": ((IMAGES, (16,), (16,)), {"groups": 4}),
    "instance_norm": ((IMAGES, (16,), (16,)), {}),
    "weight_norm": ((weights(1024, 1024), (1024,)), {}),
    "dropout": ((ROWS,), {"key": KEY}),
    "clip_by_value": ((ROWS,), {"low": -1.0, "high": 1.0}),
    "clip_by_norm": ((ROWS,), {"max_norm": 1.0}),
    "clip_by_global_norm": (([ROWS, (1024,)],), {"max_norm": 1.0}),
    "embedding": ((integers(8192, 32, 128), weights(8192, 256)), {}),
    "learned_positions": (((32, 128, 256), weights(512, 256)), {}),
    **{name: (((32, 512, 64),), {}) for name in ("rotary", "sinusoidal_positions")},
    "conv": ((IMAGES, (3, 3, 16, 32)), {"padding": 1}),
    "conv_transpose": (((32, 14, 14, 32), (3, 3, 16, 32)), {"stride": 2}),
    **{name: ((IMAGES,), {"window": 2}) for name in ("average_pool", "max_pool")},
    **{name: ((IMAGES,), {}) for name in ("global_average_pool", "global_max_pool")},
    "grouped_query_attention": (
        ((2, 8, 256, 64), (2, 2, 256, 64), (2, 2, 256, 64)),
        {"causal": True},
    ),
    "multi_head_attention": (
        ((4, 256, 256), (4, 256, 256), *[weights(256, 256)] * 4),
        {"heads": 4, "causal": True},
    ),
}

# What is made of few numbers a place, once more at 64 MB, which no cache holds
WIDE = (4096, 4096)
LARGE: dict[str, tuple[tuple[Argument, ...], dict]] = {
    **{name: ((WIDE,), {}) for name in ("gelu", "sigmoid", "softmax", "squareplus", "tanh")},
    "softmax_cross_entropy": ((WIDE, distributions(*WIDE)), {}),
    "clip_by_norm": ((WIDE,), {"max_norm": 1.0}),
}

TEXT = labels(8, 128, classes=256), labels(8, 128, classes=256)
LSTM_TEXT = labels(32, 64, classes=256), labels(32, 64, classes=256)
LENET = {
    "convolutions": [convolution(5, 1, 6), convolution(5, 6, 16)],
    "dense": layers(256, 120, 84, 10),
}
GPT = {**gpt_model(256, 128, 256, 0), "blocks": [gpt(256, 1024) for _ in range(2)]}
LLAMA = {
    "table": uniform(256, 256, low=-1),
    "blocks": [llama(256, 8, 2, 688) for _ in range(2)],
    "norm": uniform(256, low=0.5, high=2),
    "head": matrix(256, 256),
}

NETWORKS: dict[str, Case] = {
    case.function: case
    for case in (
        Case("mlp: 784-512-256-10, batch 256", layers(784, 512, 256, 10), normal(256, 784)),
        Case(
            "mlp_loss: 784-512-256-10, batch 256",
            layers(784, 512, 256, 10),
            normal(256, 784),
            normal(256, 10),
        ),
        Case(
            "lenet_loss: 64 images of 28×28", LENET, uniform(64, 28, 28, 1), labels(64, classes=10)
        ),
        Case(
            "vae_loss: 784-256-16, batch 128",
            autoencoder(784, 256, 16),
            uniform(128, 784),
            normal(128, 16),
        ),
        Case(
            "recurrent_lm_loss: lstm, T=64, B=32, I=128, H=256, V=256",
            recurrent_model("lstm", 256, 128, 256)[0],
            [state("lstm", 32, 256)],
            *LSTM_TEXT,
        ),
        Case("gpt_block: 8 of T=128, d=256", gpt(256, 1024), normal(8, 128, 256), heads=8),
        Case("gpt_loss: 8 of T=128, d=256, 2 blocks, V=256", GPT, *TEXT, heads=8),
        Case("llama_block: 8 of T=128, d=256", llama(256, 8, 2, 688), normal(8, 128, 256), heads=8),
        Case("llama_loss: 8 of T=128, d=256, 2 blocks, V=256", LLAMA, *TEXT, heads=8),
    )
}
