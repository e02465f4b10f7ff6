"""Sample recurrent language models: characters that come again, two layers."""

import itertools

import numpy as np

from handgrad.compare.cases import Case, labels, normal
from handgrad.compare.cases.sequences import state, weights


def model(cell, characters, *sizes):
    """Parameters and states: features, then the hidden units of each layer; a batch of two."""
    pairs = list(itertools.pairwise(sizes))
    params = {
        "table": normal(characters, sizes[0]),
        "layers": [weights(cell, n, m) for n, m in pairs],
        "w": normal(sizes[-1], characters),
        "b": normal(characters),
    }
    return params, [state(cell, 2, m) for _, m in pairs]


TEXT = labels(2, 5, classes=4), labels(2, 5, classes=4)
PADDED = np.array([[3, 1, 0, -100, -100], [-100] * 5], np.int32)  # of the second text all

CASES = [
    Case("recurrent_lm_loss", *model("lstm", 4, 3, 2), *TEXT),
    Case("recurrent_lm_loss: two layers of tanh", *model("tanh", 4, 3, 2, 3), *TEXT, cell="tanh"),
    Case("recurrent_lm_loss: padded", *model("lstm", 4, 3, 2), TEXT[0], PADDED, ignore_index=-100),
    Case("recurrent_lm_loss: gru", *model("gru", 4, 2, 2), *TEXT, cell="gru"),
]
