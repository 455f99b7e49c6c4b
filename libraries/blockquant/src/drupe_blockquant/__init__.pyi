"""The public names and their homes; each home is loaded when one of its names is first used."""

from .gptq import GptqFactor as GptqFactor
from .gptq import gptq_factor as gptq_factor
from .gptq import gptq_rows as gptq_rows
from .layout import Quantized as Quantized
from .layout import dequantize_rows as dequantize_rows
from .layout import pack_levels as pack_levels
from .layout import pack_zero_points as pack_zero_points
from .layout import unpack_levels as unpack_levels
from .layout import unpack_zero_points as unpack_zero_points
from .low_rank import add_product as add_product
from .quantize import backend as backend
from .quantize import is_ready as is_ready
from .quantize import quantize_rows as quantize_rows
from .quantize import warm_up as warm_up
from .scheme import NonFiniteError as NonFiniteError
from .scheme import Scheme as Scheme
from .scheme import choose_block_size as choose_block_size
