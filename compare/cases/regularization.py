"""Sample inputs of the penalties."""

from handgrad.compare.cases import Case, normal

CASES = [
    Case("l2_penalty", normal(3, 4)),
    Case("l2_penalty: weak", normal(5), strength=0.01),
    Case("l1_penalty", normal(3, 4), strength=0.3),
    Case("elastic_net", normal(4, 3), l1=0.2, l2=0.7),
    Case("soft_threshold", normal(5, 4), threshold=0.5),
]
