"""The public names and their homes; each home is loaded when one of its names is first used."""

from .block_finding import mark_blocks as mark_blocks
from .distribution import Distribution as Distribution
from .expert_arithmetic import Activation as Activation
from .expert_arithmetic import Routing as Routing
from .expert_arithmetic import expert_activation as expert_activation
from .layer_by_layer import LayerByLayer as LayerByLayer
from .layer_by_layer import Logits as Logits
from .recorded_logits import RecordedLogits as RecordedLogits
from .routed_rows import RoutedRows as RoutedRows
from .segments import Segment as Segment
from .segments import has_head as has_head
from .segments import hidden_states as hidden_states
from .segments import nodes_behind as nodes_behind
from .segments import result_of as result_of
from .segments import whole as whole
