"""PyTorch's linear layer and cross entropy, one after the other, beside the fused one."""

import functools

import numpy as np
import pytest

from handgrad import manual

torch = pytest.importorskip("torch", reason="no PyTorch: pip install 'handgrad[peers]'")

from peers import agree, normal  # noqa: E402


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_linear_softmax_cross_entropy(reduction):
    agree(
        functools.partial(manual.linear_softmax_cross_entropy, reduction=reduction, block=4),
        lambda x, w, b, c: torch.nn.functional.cross_entropy(x @ w + b, c, reduction=reduction),
        normal(10, 3), normal(3, 6), normal(6), np.random.default_rng(0).integers(0, 6, 10),
    )  # fmt: skip


SOME, TEXT = [[4, -100, 0, 2], [-100, 1, 1, -100]], [[4, 0, 0, 2], [-100] * 4]


@pytest.mark.parametrize(
    ("labels", "ignored"), [(SOME, -100), (TEXT, -100), (np.full((2, 4), -100), -100), (TEXT, 0)]
)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_ignored_labels(reduction, labels, ignored):
    """Some, a whole sequence, all of them, where the mean is NaN and flat, and those of a class."""
    labels = np.where(np.equal(labels, -100), ignored, labels)
    options = {"reduction": reduction, "ignore_index": ignored}

    def theirs(x, w, b, c):
        logits = (x @ w + b).flatten(0, 1)
        return torch.nn.functional.cross_entropy(logits, c.flatten(), **options)

    ours = functools.partial(manual.linear_softmax_cross_entropy, block=3, **options)
    agree(ours, theirs, normal(2, 4, 3), normal(3, 6), normal(6), labels)
