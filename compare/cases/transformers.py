"""Sample transformers: model 6 or 8, two heads, a few tokens; weights of variance 1/(3 inputs).

The keys have no bias: it adds the same to all scores of a query, so that its gradient is zero and
what is computed of it rounding alone.
"""

import numpy as np

from handgrad.compare.cases import Case, labels, normal, uniform


def matrix(n, m):
    """The same at every input scale, as in `networks.layers`."""
    return uniform(n, m, low=-(n**-0.5), high=n**-0.5)


def gpt(model, net):
    square = [matrix(model, model) for _ in range(4)]
    return {
        "norm1": (uniform(model, low=0.5, high=2), uniform(model)),
        "attention": (*square, uniform(model), None, uniform(model), uniform(model)),
        "norm2": (uniform(model, low=0.5, high=2), uniform(model)),
        "up": (matrix(model, net), uniform(net)),
        "down": (matrix(net, model), uniform(model)),
    }


def llama(model, heads, groups, net):
    width = model // heads
    shared = matrix(model, groups * width), matrix(model, groups * width)
    return {
        "norm1": uniform(model, low=0.5, high=2),
        "attention": (matrix(model, model), *shared, matrix(model, model)),
        "norm2": uniform(model, low=0.5, high=2),
        "gate": matrix(model, net),
        "up": matrix(model, net),
        "down": matrix(net, model),
    }


def gpt_model(tokens, longest, model, blocks):
    return {
        "table": uniform(tokens, model, low=-1),
        "positions": uniform(longest, model, low=-1),
        "blocks": [gpt(model, 5) for _ in range(blocks)],
        "norm": (uniform(model, low=0.5, high=2), uniform(model)),
    }


LLAMA_MODEL = {
    "table": uniform(5, 8, low=-1),
    "blocks": [llama(8, 4, 2, 7)],
    "norm": uniform(8, low=0.5, high=2),
    "head": matrix(8, 5),
}
TEXT = labels(2, 4, classes=5), labels(2, 4, classes=5)
ASKED = np.array([[-100, -100, 2, 4], [-100, 1, -100, 0]], np.int32)  # of the rest the answer
PADDED = np.array([[1, 3, 0, -100], [-100] * 4], np.int32)  # of the second text all

CASES = [
    Case("gpt_block", gpt(6, 7), normal(2, 4, 6), heads=2),
    Case("llama_block", llama(8, 2, 1, 5), normal(2, 4, 8), heads=2),
    Case("gpt_loss", gpt_model(5, 6, 6, 1), *TEXT, heads=2),
    Case(
        "gpt_loss: a text ignored",
        gpt_model(5, 6, 6, 1),
        TEXT[0],
        PADDED,
        heads=2,
        ignore_index=-100,
    ),
    Case("llama_loss", LLAMA_MODEL, *TEXT, heads=4),
    Case("llama_loss: prompts ignored", LLAMA_MODEL, TEXT[0], ASKED, heads=4, ignore_index=-100),
]
