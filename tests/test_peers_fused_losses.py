"""PyTorch's linear layer and cross entropy, one after the other, beside the fused one."""

import functools

import numpy as np
import pytest

from handgrad import manual

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install handgrad[peers]")

from peers import agree, normal  # noqa: E402


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_linear_softmax_cross_entropy(reduction):
    agree(
        functools.partial(manual.linear_softmax_cross_entropy, reduction=reduction, block=4),
        lambda x, w, b, c: torch.nn.functional.cross_entropy(x @ w + b, c, reduction=reduction),
        normal(10, 3), normal(3, 6), normal(6), np.random.default_rng(0).integers(0, 6, 10),
    )  # fmt: skip
