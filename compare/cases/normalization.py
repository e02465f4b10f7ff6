"""Sample inputs of normalisation: images, one feature, features all equal, zeros."""

import numpy as np

from handgrad.compare.cases import Case, normal, positive

EQUAL = np.array([[2.0, 2.0, 2.0], [1e4, 1e4, 1e4], [0.0, 0.0, 0.0]])

CASES = [
    Case("batch_norm", normal(6, 3), normal(3), normal(3)),
    Case("batch_norm: images", normal(2, 3, 4, 5), normal(5), normal(5)),
    Case("batch_norm: large eps", normal(5, 2), normal(2), normal(2), eps=0.3),
    Case("batch_norm_inference", normal(2, 3, 4), normal(4), normal(4), normal(4), positive(4)),
    Case("layer_norm", normal(3, 5), normal(5), normal(5)),
    Case("layer_norm: two batch axes", normal(2, 1, 4), normal(4), normal(4)),
    Case("layer_norm: one sample", normal(6), normal(6), normal(6)),
    Case("layer_norm: far from zero", normal(2, 4, shift=100.0), normal(4), normal(4), eps=0.1),
    Case("layer_norm: all equal", EQUAL, normal(3), normal(3), eps=0.1),
    Case("layer_norm: no samples", normal(0, 3), normal(3), normal(3)),
    Case("rms_norm", normal(3, 5), normal(5)),
    Case("rms_norm: two batch axes", normal(2, 1, 4), normal(4)),
    Case("rms_norm: one feature", normal(3, 1), normal(1), eps=0.1),
    Case("rms_norm: all equal", EQUAL, normal(3), eps=0.1),
    Case("group_norm", normal(2, 3, 4, 6), normal(6), normal(6), groups=3),
    Case("group_norm: one group", normal(2, 5, 4), normal(4), normal(4), groups=1),
    Case("group_norm: no space", normal(3, 6), normal(6), normal(6), groups=2),
    Case("group_norm: all equal", np.ones((2, 3, 4)), normal(4), normal(4), groups=2, eps=0.1),
    Case("instance_norm", normal(2, 3, 4, 5), normal(5), normal(5)),
    Case("instance_norm: one axis", normal(2, 7, 3), normal(3), normal(3), eps=0.1),
    Case("weight_norm", normal(5, 3), normal(3)),
    Case("weight_norm: kernel", normal(3, 2, 4, 5), normal(5)),
    Case("weight_norm: tiny", normal(3, 2, scale=1e-14), normal(2)),
    Case("weight_norm: one output", normal(4, 1), normal(1)),
    Case("l2_normalize", normal(3, 5)),
    Case("l2_normalize: middle axis", normal(2, 4, 3), axis=1),
    Case("l2_normalize: one vector", normal(4)),
    Case("l2_normalize: tiny", normal(3, 4, scale=1e-14), eps=0.0),
    Case("l2_normalize: shorter than eps", normal(3, 2), eps=1e4),
]
