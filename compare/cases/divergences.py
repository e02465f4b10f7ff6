"""Sample inputs of the divergences: near, far, certain; labels of both kinds."""

import numpy as np

from handgrad.compare.cases import Case, labels, normal, positive, probabilities

CERTAIN = np.array([[40.0, 0.0, -3.0], [-700.0, 1e4, 2.0]])

CASES = [
    Case("kl_divergence", probabilities(3, 4), probabilities(3, 4)),
    Case("kl_divergence: unnormalised", positive(2, 3, 4), positive(2, 3, 4)),
    Case("kl_divergence: one sample", probabilities(5), probabilities(5)),
    Case("kl_divergence: one class", positive(3, 1), positive(3, 1)),
    Case("kl_divergence: equal", np.full((2, 4), 0.25), np.full((2, 4), 0.25)),
    Case("kl_divergence_with_logits", normal(3, 4), normal(3, 4)),
    Case("kl_divergence_with_logits: two batch axes", normal(2, 1, 3), normal(2, 1, 3)),
    Case("kl_divergence_with_logits: one class", normal(3, 1), normal(3, 1)),
    Case("kl_divergence_with_logits: shifted", normal(2, 4, shift=1e3), normal(2, 4)),
    Case("kl_divergence_with_logits: certain", CERTAIN, normal(2, 3)),
    Case("label_smoothing_cross_entropy", normal(3, 4), labels(3, classes=4)),
    Case(
        "label_smoothing_cross_entropy: two batch axes",
        normal(2, 3, 4),
        labels(2, 3, classes=4),
        smoothing=0.3,
    ),
    Case(
        "label_smoothing_cross_entropy: none stands out",
        normal(2, 7, scale=0.1),
        labels(2, classes=7),
    ),
    Case("label_smoothing_cross_entropy: certain", CERTAIN, np.array([0, 1])),
    Case("label_smoothing_cross_entropy: hard", normal(2, 3), labels(2, classes=3), smoothing=0.0),
    Case("focal_loss_with_logits", normal(3, 4), labels(3, 4, classes=2)),
    Case("focal_loss_with_logits: balanced", normal(5), labels(5, classes=2), alpha=0.25),
    Case("focal_loss_with_logits: no focus", normal(2, 3), labels(2, 3, classes=2), gamma=0.0),
    Case("focal_loss_with_logits: root", normal(2, 3), labels(2, 3, classes=2), gamma=0.5),
    Case(
        "focal_loss_with_logits: saturated",
        np.array([[-1e4, -20.0, 1e-30], [5.0, 20.0, 1e4]]),
        labels(2, 3, classes=2),
    ),
]
