"""Sample inputs of blockwise attention: whole blocks, a remainder, one block, padding."""

import numpy as np

from handgrad.compare.cases import Case, normal, uniform


def qkv(*batch, time, width=3, out=4, scale=1.0):
    return (
        normal(*batch, time, width, scale=scale),
        normal(*batch, time, width, scale=scale),
        normal(*batch, time, out),
    )


CASES = [
    Case("blockwise_attention", *qkv(2, time=6), block=2),
    Case("blockwise_attention: remainder", *qkv(2, 1, time=7), block=3),
    Case("blockwise_attention: not causal", *qkv(2, time=5), causal=False, block=2),
    Case("blockwise_attention: one block", *qkv(time=4)),
    Case("blockwise_attention: lengths", *qkv(3, time=5), lengths=(3, 0, 5), block=2),
    Case(
        "blockwise_attention: lengths, not causal",
        *qkv(2, 2, time=5),
        lengths=np.array([4, 1], np.int32),
        causal=False,
        block=2,
        scale=0.7,
    ),
    Case("blockwise_attention: certain", *qkv(time=5, scale=9.0), block=2),
    Case(
        "blockwise_attention: scores far below zero, other rows others",
        uniform(2, 4, 3, low=-1.01, high=-0.99),
        np.linspace(0.99, 1.01, 24).reshape(2, 4, 3) * np.array([1, 3])[:, None, None],
        normal(2, 4, 4),
        block=2,
        scale=400.0,
    ),
    Case("blockwise_attention: one step", *qkv(1, time=1, width=1, out=3)),
]
