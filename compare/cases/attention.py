"""Sample inputs of attention: every kind of mask, rows that see nothing, certain weights."""

import numpy as np

from handgrad.compare.cases import Case, normal, uniform

MASK = np.array(  # the third of five queries sees nothing
    [[1, 1, 0, 1], [0, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 1, 1]], bool
)
QKV = normal(2, 5, 3), normal(2, 4, 3), normal(2, 4, 6)
HIDING = np.where(MASK, np.linspace(-2, 1, 20).reshape(5, 4), -np.inf)
HEADS = normal(2, 4, 5, 3), normal(2, 2, 5, 3), normal(2, 2, 5, 3)


def projections(model, context, query, key, value, out, *, bias=False):
    """Matrices of variance 1/inputs at every scale (see `networks.layers`); biases or none."""
    shapes = (model, query), (context, key), (context, value), out
    weights = [uniform(n, m, low=-((3 / n) ** 0.5), high=(3 / n) ** 0.5) for n, m in shapes]
    return *weights, *((uniform(m) if bias else None) for _, m in shapes)


CASES = [
    Case("attention", *QKV),
    Case(
        "attention: causal", normal(2, 3, 5, 4), normal(2, 3, 5, 4), normal(2, 3, 5, 4), causal=True
    ),
    Case("attention: causal, fewer keys", *QKV, causal=True),
    Case("attention: lengths", *QKV, lengths=(3, 0)),
    Case("attention: mask", *QKV, mask=MASK),
    Case("attention: mask of each sample", *QKV, mask=np.stack([MASK, ~MASK])),
    Case("attention: all masks", *QKV, causal=True, lengths=np.array([4, 2], np.int32), mask=~MASK),
    Case("attention: no batch", normal(3, 2), normal(4, 2), normal(4, 5), lengths=3, scale=0.3),
    Case("attention: size one", normal(1, 1, 1), normal(1, 1, 1), normal(1, 1, 1)),
    Case("attention: certain", normal(3, 4, scale=9.0), normal(5, 4, scale=9.0), normal(5, 2)),
    Case("attention: all equal", np.zeros((3, 4)), np.ones((5, 4)), normal(5, 2)),
    Case("attention: bias", *QKV, normal(5, 4)),
    Case(
        "attention: bias of each head", *[normal(2, 3, 4, 2)] * 3, normal(1, 3, 4, 4), causal=True
    ),
    Case("attention: bias of the keys", *QKV, normal(2, 1, 4), lengths=(3, 0), scale=0.4),
    Case("attention: bias that masks", *QKV, HIDING),
    Case("grouped_query_attention", *HEADS),
    Case("grouped_query_attention: causal", *HEADS, causal=True, lengths=(5, 2)),
    Case("grouped_query_attention: certain", *HEADS, scale=120.0),
    Case(
        "grouped_query_attention: one group",
        normal(1, 3, 2, 4),
        normal(1, 1, 5, 4),
        normal(1, 1, 5, 2),
    ),
    Case(
        "grouped_query_attention: mask of each head",
        normal(2, 2, 5, 3),
        normal(2, 2, 4, 3),
        normal(2, 2, 4, 3),
        mask=np.stack([MASK, ~MASK])[None],
        scale=1.0,
    ),
    Case("grouped_query_attention: bias", *HEADS, normal(5, 5), lengths=(5, 0)),
    Case("grouped_query_attention: bias of each head", *HEADS, normal(1, 4, 5, 5), scale=0.6),
    Case("grouped_query_attention: bias of the keys", *HEADS, normal(2, 1, 1, 5)),
    Case(
        "multi_head_attention",
        normal(2, 4, 5),
        normal(2, 3, 6),
        *projections(5, 6, 8, 8, 4, (4, 7)),
        heads=2,
    ),
    Case(
        "multi_head_attention: biases",
        uniform(2, 4, 5, low=-2),
        uniform(2, 4, 5, low=-2),
        *projections(5, 5, 6, 6, 6, (6, 5), bias=True),
        heads=3,
        causal=True,
    ),
    Case(
        "multi_head_attention: grouped, padded",
        normal(2, 4, 5),
        normal(2, 3, 6),
        *projections(5, 6, 8, 4, 4, (8, 5), bias=True),
        heads=4,
        lengths=(2, 3),
    ),
    Case(
        "multi_head_attention: bias of the scores",
        normal(2, 4, 5),
        normal(2, 3, 6),
        *projections(5, 6, 8, 4, 4, (8, 5)),
        normal(1, 4, 4, 3),
        heads=4,
    ),
]
