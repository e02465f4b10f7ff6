"""Sample inputs of blockwise attention: whole blocks, a remainder, one block, padding."""

import numpy as np

from handgrad.compare.cases import Case, normal


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
    Case("blockwise_attention: one step", *qkv(1, time=1, width=1, out=3)),
]
