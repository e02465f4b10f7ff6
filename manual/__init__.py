"""Operations with their derivatives written by hand. Nothing here calls autodiff.

`handgrad list` on the command line names them all, and `help(handgrad.manual.lstm)` is the page of
one: its formulas, forward and backward, the shapes of its arguments, what it raises, its source.
"""

from handgrad.manual.activations import *
from handgrad.manual.attention import *
from handgrad.manual.autoencoders import *
from handgrad.manual.blockwise_attention import *
from handgrad.manual.clipping import *
from handgrad.manual.convolution import *
from handgrad.manual.dense import *
from handgrad.manual.divergences import *
from handgrad.manual.dropout import *
from handgrad.manual.embedding import *
from handgrad.manual.fused_losses import *
from handgrad.manual.gated import *
from handgrad.manual.gaussian import *
from handgrad.manual.image_models import *
from handgrad.manual.language_models import *
from handgrad.manual.losses import *
from handgrad.manual.margins import *
from handgrad.manual.networks import *
from handgrad.manual.normalization import *
from handgrad.manual.op import Op as Op
from handgrad.manual.op import op as op
from handgrad.manual.piecewise import *
from handgrad.manual.pooling import *
from handgrad.manual.recurrent import *
from handgrad.manual.regression import *
from handgrad.manual.regularization import *
from handgrad.manual.sequences import *
from handgrad.manual.smooth import *
from handgrad.manual.transformers import *
