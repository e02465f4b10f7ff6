"""Sample inputs of the margins and similarities: short of the margin, beyond it, zero vectors."""

import numpy as np

from handgrad.compare.cases import Case, Sample, labels, normal

SIGNS = Sample(lambda rng, s: rng.choice([-1.0, 1.0], (3, 4)))
ROWS = np.array([[1.0, 2.0, -2.0], [0.0, 0.0, 0.0], [3.0, 0.0, 4.0]])

CASES = [
    *(
        case
        for name in ("hinge", "squared_hinge")
        for case in (
            Case(name, normal(3, 4), SIGNS),
            Case(f"{name}: any labels", normal(2, 1, 5), normal(2, 1, 5)),
            Case(f"{name}: far off", np.array([1e4, -1e4, 1e-30]), np.array([1.0, 1.0, -1.0])),
            Case(f"{name}: at the margin", np.array([1.0, -1.0]), np.array([1.0, -1.0])),
        )
    ),
    Case("multiclass_hinge", normal(5, 4), labels(5, classes=4)),
    Case("multiclass_hinge: wide", normal(2, 1, 3), labels(2, 1, classes=3), margin=3.0),
    Case("multiclass_hinge: one class", normal(3, 1), labels(3, classes=1)),
    Case("multiclass_hinge: one sample", normal(5), np.array(2)),
    Case("multiclass_hinge: at the margin", np.array([[1.0, 2.0, 0.0]]), np.array([1])),
    Case("triplet_margin", normal(5, 3), normal(5, 3), normal(5, 3)),
    Case("triplet_margin: wide", normal(2, 3, 4), normal(2, 3, 4), normal(2, 3, 4), margin=7.0),
    Case("triplet_margin: tiny", *[normal(2, 3, scale=1e-14)] * 3),
    Case("triplet_margin: one sample", normal(4), normal(4), normal(4)),
    Case("cosine_similarity_loss", normal(3, 4), normal(3, 4)),
    Case("cosine_similarity_loss: two batch axes", normal(2, 1, 3), normal(2, 1, 3)),
    Case("cosine_similarity_loss: tiny", *[normal(2, 3, scale=1e-14)] * 2),
    Case("cosine_similarity_loss: one sample", normal(5), normal(5)),
    Case("cosine_similarity_loss: orthogonal", ROWS[[0]], np.array([[2.0, 1.0, 2.0]])),
    Case("info_nce", normal(4, 3), normal(4, 3)),
    Case("info_nce: symmetric", normal(4, 3), normal(4, 3), symmetric=True, temperature=0.5),
    Case("info_nce: more features than samples", normal(2, 7), normal(2, 7), temperature=2.0),
    Case("info_nce: all equal", np.ones((3, 2)), np.ones((3, 2)), symmetric=True),
]
