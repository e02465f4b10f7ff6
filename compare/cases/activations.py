"""Sample inputs of the activations: spread, saturated and tiny, on the kinks."""

import numpy as np

from handgrad.compare.cases import Case, normal

KINK = np.array([-1.0, 0.0, 2.0])
EXTREME = np.array([[-1e4, -700.0, -40.0, -1e-8], [1e-8, 40.0, 700.0, 1e4]])[:, None]

ELEMENTWISE = (
    "elu",
    "gelu",
    "identity",
    "leaky_relu",
    "log_sigmoid",
    "relu",
    "selu",
    "sigmoid",
    "sign",
    "silu",
    "softplus",
    "step",
    "tanh",
)
KINKED = ("elu", "leaky_relu", "relu", "selu", "sign", "step")

CASES = [
    *(Case(name, normal(3, 5)) for name in ELEMENTWISE),
    *(Case(f"{name}: extreme", EXTREME) for name in ELEMENTWISE),
    *(Case(f"{name}: kink", KINK) for name in KINKED),
    Case("leaky_relu: steep", normal(3, 5), negative_slope=0.3),
    Case("elu: alpha", normal(3, 5), alpha=1.7),
    Case("elu: alpha kink", KINK, alpha=1.7),
    Case("gelu: exact", normal(3, 5), approximate=False),
    Case("gelu: exact extreme", EXTREME, approximate=False),
]

CASES += [
    Case("log_sum_exp", normal(3, 5)),
    Case("log_sum_exp: middle axis", normal(2, 6, 3), axis=1, keepdims=True),
    Case("log_sum_exp: one entry", normal(3, 1)),
    Case("log_sum_exp: ties", np.array([[2.0, 2.0, -1.0], [0.0, 0.0, 0.0]])),
    Case("log_sum_exp: extreme", np.array([[1e4, -1e4, 0.0], [-1e4, -1e4, -700.0]])),
]

for _name in ("softmax", "log_softmax"):
    CASES += [
        Case(_name, normal(3, 5)),
        Case(f"{_name}: one row", normal(4, scale=3.0)),
        Case(f"{_name}: middle axis", normal(2, 6, 3), axis=1),
        Case(f"{_name}: one class", normal(3, 1)),
        Case(f"{_name}: shifted", normal(2, 1, 4, shift=1e3)),
        Case(f"{_name}: ties", np.array([[2.0, 2.0, -1.0], [0.0, 0.0, 0.0]])),
    ]
