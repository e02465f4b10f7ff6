"""Sample inputs of clipping: inside and outside, on the bounds, trees."""

import numpy as np

from handgrad.compare.cases import Case, normal

CASES = [
    Case("clip_by_value", normal(3, 5), low=-0.5, high=0.7),
    Case("clip_by_value: bounds", np.array([-1.0, 0.0, 2.0, 1e4]), low=-1, high=2),
    Case("clip_by_norm", normal(3, 5), max_norm=0.5),
    Case("clip_by_norm: short enough", normal(4), max_norm=1e6),
    Case("clip_by_norm: a scalar", np.array(3.0), max_norm=4.0),
    Case("clip_by_norm: tiny", normal(4, scale=1e-14), max_norm=1e-15),
    Case("clip_by_norm: zero", np.zeros((2, 3)), max_norm=0.5),
    Case("clip_by_global_norm", [normal(3, 5), normal(4)], max_norm=0.5),
    Case("clip_by_global_norm: short enough", [normal(3), normal(2, 1)], max_norm=1e6),
    Case(
        "clip_by_global_norm: tiny",
        [normal(3, scale=1e-14), normal(2, 2, scale=1e-14)],
        max_norm=1e-15,
    ),
    Case(
        "clip_by_global_norm: nested",
        {"w": normal(2, 3), "rest": (normal(3), normal())},
        max_norm=0.1,
    ),
]
