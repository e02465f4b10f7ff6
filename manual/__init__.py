"""Operations with their derivatives written by hand. Nothing here calls autodiff."""

from handgrad.manual.activations import *
from handgrad.manual.convolution import *
from handgrad.manual.dense import *
from handgrad.manual.dropout import *
from handgrad.manual.embedding import *
from handgrad.manual.losses import *
from handgrad.manual.networks import *
from handgrad.manual.normalization import *
from handgrad.manual.op import Op as Op
from handgrad.manual.op import op as op
from handgrad.manual.recurrent import *
from handgrad.manual.regularization import *
