"""Sample convolutional networks: images of 10×11 and smaller."""

import numpy as np

from handgrad.compare.cases import Case, labels, uniform
from handgrad.compare.cases.networks import layers


def convolution(window, features, out):
    bound = (3 / (window * window * features)) ** 0.5
    kernel = uniform(window, window, features, out, low=-bound, high=bound)
    return kernel, uniform(out, low=-0.5, high=0.5)


CASES = [
    Case(
        "lenet_loss",
        {
            "convolutions": [convolution(3, 1, 2), convolution(2, 2, 3)],
            "dense": layers(3 * 1 * 1, 4, 3),
        },
        uniform(2, 8, 9, 1, low=-1),
        labels(2, classes=3),
    ),
    Case(
        "lenet_loss: one of each",
        {"convolutions": [convolution(2, 2, 3)], "dense": layers(3 * 2 * 1, 2)},
        uniform(3, 5, 4, 2, low=-1),
        labels(3, classes=2),
    ),
    Case(
        "lenet_loss: logits below zero",
        {
            "convolutions": [convolution(2, 1, 2)],
            "dense": [(uniform(2, 3), uniform(3, low=-9, high=-6))],
        },
        uniform(2, 3, 3, 1, low=-1),
        labels(2, classes=3),
    ),
    Case(
        "lenet_loss: certain",
        {
            "convolutions": [convolution(2, 1, 2)],
            "dense": [(uniform(8, 3), np.array([0.0, 30.0, 0.0]))],
        },
        uniform(2, 5, 5, 1, low=-1),
        np.array([1, 1]),
    ),
]
