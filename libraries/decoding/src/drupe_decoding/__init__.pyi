"""The public names and their homes; each home is loaded when one of its names is first used."""

from .feeding import DecoderFeed as DecoderFeed
from .feeding import empty_cache as empty_cache
from .feeding import input_array as input_array
from .feeding import numpy_type as numpy_type
from .generation import Generation as Generation
from .generation import Message as Message
from .generation import Stopwatch as Stopwatch
from .generation import Timing as Timing
from .graphs import cache_sizes as cache_sizes
from .graphs import decoder_ports as decoder_ports
from .graphs import port_of as port_of
from .graphs import vocabulary_size as vocabulary_size
from .ports import TOKENS as TOKENS
from .ports import Cache as Cache
from .ports import CacheName as CacheName
from .ports import CacheSizes as CacheSizes
from .ports import DecoderPorts as DecoderPorts
from .ports import Port as Port
from .ports import cache_name as cache_name
from .ports import empty_cache_shape as empty_cache_shape
from .refusals import NoRoom as NoRoom
from .refusals import not_finite as not_finite
from .refusals import refuse_no_room as refuse_no_room
from .session import TextSession as TextSession
from .session import text_session as text_session
