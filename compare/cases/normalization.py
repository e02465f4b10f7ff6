"""Sample inputs of normalisation."""

from handgrad.compare.cases import Case, normal, positive

CASES = [
    Case("batch_norm", normal(6, 3), normal(3), normal(3)),
    Case("batch_norm: images", normal(2, 3, 4, 5), normal(5), normal(5)),
    Case("batch_norm: large eps", normal(5, 2), normal(2), normal(2), eps=0.3),
    Case("batch_norm_inference", normal(2, 3, 4), normal(4), normal(4), normal(4), positive(4)),
]
