"""Sample networks: depths, activations, losses."""

import itertools

from handgrad.compare.cases import Case, labels, normal, one_hot, probabilities, uniform


def layers(*sizes, bias=True):
    """Random (w, b): w with variance 1/inputs, as initialised nets have, at every input scale.

    The input x grows with the scale; were the weights to grow too, every unit would saturate and
    no gradient be left to verify.
    """
    return [
        (uniform(n, m, low=-((3 / n) ** 0.5), high=(3 / n) ** 0.5), uniform(m) if bias else None)
        for n, m in itertools.pairwise(sizes)
    ]


CASES = [
    Case("mlp", layers(3, 5, 2), normal(4, 3)),
    Case("mlp: one layer", layers(3, 2), normal(4, 3)),
    Case("mlp: four layers", layers(3, 6, 5, 4, 2), normal(4, 3)),
    Case("mlp: one sample", layers(3, 4, 2), normal(3)),
    Case("mlp: size-1 layers", layers(1, 1, 1), normal(1, 1)),
    Case("mlp: no biases", layers(3, 5, 2, bias=False), normal(4, 3)),
    Case("mlp: mixed biases", [*layers(3, 5), *layers(5, 2, bias=False)], normal(4, 3)),
    Case("mlp: two batch axes", layers(3, 4, 2), normal(2, 5, 3)),
    *(
        Case(f"mlp: {name}", layers(3, 5, 2), normal(4, 3), activation=name)
        for name in ("sigmoid", "relu", "elu", "gelu", "softmax")
    ),
    Case("mlp: step", layers(3, 5, 2), normal(2, 3), activation="step"),
    Case("mlp: sigmoid output", layers(3, 5, 2), normal(4, 3), output_activation="sigmoid"),
    Case("mlp_loss", layers(3, 5, 2), normal(4, 3), normal(4, 2)),
    Case("mlp_loss: mean", layers(3, 5, 2), normal(4, 3), normal(4, 2), reduction="mean"),
    *(
        Case(f"mlp_loss: {name}", layers(3, 5, 2), normal(4, 3), normal(4, 2), loss=name)
        for name in ("squared_error", "total_squared_error", "mse")
    ),
    Case(
        "mlp_loss: sigmoid everywhere",
        layers(2, 2, 2),
        normal(2),
        uniform(2),
        activation="sigmoid",
        output_activation="sigmoid",
        loss="squared_error",
    ),
    Case(
        "mlp_loss: logistic neuron",
        layers(3, 1),
        normal(5, 3),
        uniform(5, 1),
        loss="binary_cross_entropy_with_logits",
        reduction="mean",
    ),
    Case(
        "mlp_loss: binary cross entropy",
        layers(3, 4, 2),
        uniform(5, 3, low=-1),
        uniform(5, 2),
        output_activation="sigmoid",
        loss="binary_cross_entropy",
    ),
    Case(
        "mlp_loss: softmax and cross entropy by name",
        layers(3, 5, 4),
        uniform(2, 3, low=-1),
        probabilities(2, 4),
        output_activation="softmax",
        loss="categorical_cross_entropy",
    ),
    Case(
        "mlp_loss: softmax cross entropy",
        layers(3, 5, 4),
        normal(2, 3),
        one_hot(2, 4),
        activation="relu",
        loss="softmax_cross_entropy",
    ),
    Case(
        "mlp_loss: logits below zero",
        [*layers(3, 5), (uniform(5, 4), uniform(4, low=-9, high=-6))],
        normal(2, 3),
        one_hot(2, 4),
        loss="softmax_cross_entropy",
    ),
    Case(
        "mlp_loss: soft labels",
        layers(3, 5, 4),
        normal(2, 3),
        probabilities(2, 4),
        activation="relu",
        loss="softmax_cross_entropy",
    ),
    Case(
        "mlp_loss: integer labels",
        layers(3, 5, 4),
        normal(6, 3),
        labels(6, classes=4),
        activation="gelu",
        loss="softmax_cross_entropy_with_integer_labels",
        reduction="mean",
    ),
]
