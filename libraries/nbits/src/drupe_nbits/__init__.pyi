"""The public names and their homes; each home is loaded when one of its names is first used."""

from .expressions import QuantizeBlocks as QuantizeBlocks
from .expressions import Weighted as Weighted
from .float_precisions import float_precisions as float_precisions
from .overruled_settings import refuse_overruled as refuse_overruled
from .rewriting import Rewriter as Rewriter
from .rewriting import finish as finish
from .rewriting import is_quantized as is_quantized
from .rewriting import operator_use as operator_use
from .rewriting import replace_site as replace_site
from .schemes import assign as assign
from .schemes import assigned as assigned
from .schemes import method_for as method_for
from .sites import EMBEDDING as EMBEDDING
from .sites import HEAD as HEAD
from .sites import Site as Site
from .sites import find_sites as find_sites
from .sites import replace_rows as replace_rows
from .sites import weigh as weigh
from .target_support import block_sizes as block_sizes
from .target_support import candidates as candidates
from .target_support import decode_time as decode_time
from .target_support import first_served as first_served
from .target_support import refusal as refusal
from .target_support import takes_two_levels as takes_two_levels
