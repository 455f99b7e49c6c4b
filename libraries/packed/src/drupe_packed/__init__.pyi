"""The public names and their homes; each home is loaded when one of its names is first used."""

from .checkpoint_matrices import matrices as matrices
from .packed_matrix import PackedMatrix as PackedMatrix
from .packing import Packing as Packing
from .packing import Rule as Rule
from .repacking import Repacked as Repacked
from .repacking import parts_of as parts_of
from .rounded_again import rounded_again as rounded_again
