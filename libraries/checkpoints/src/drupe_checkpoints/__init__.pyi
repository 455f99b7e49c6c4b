"""The public names and their homes; each home is loaded when one of its names is first used."""

from .checkpoint import Checkpoint as Checkpoint
from .configuration import Configuration as Configuration
from .context_length import context_of as context_of
from .dense_modules import Dense as Dense
from .dense_modules import DenseWeights as DenseWeights
from .dense_modules import dense_weights as dense_weights
from .kind import merged_copy as merged_copy
from .opening import checkpoint_of as checkpoint_of
from .opening import open_checkpoint as open_checkpoint
from .sentence_transformers import SentenceModules as SentenceModules
from .sentence_transformers import sentence_modules as sentence_modules
from .tasks import FEATURE_EXTRACTION as FEATURE_EXTRACTION
