"""The same operations as plain forward functions, differentiated by autodiff only."""

from handgrad.reference.activations import *
from handgrad.reference.convolution import *
from handgrad.reference.dense import *
from handgrad.reference.dropout import *
from handgrad.reference.embedding import *
from handgrad.reference.losses import *
from handgrad.reference.networks import *
from handgrad.reference.normalization import *
from handgrad.reference.recurrent import *
from handgrad.reference.regularization import *
