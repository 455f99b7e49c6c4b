"""The public names and their homes; each home is loaded when one of its names is first used."""

from .description import DESCRIPTION_KEY as DESCRIPTION_KEY
from .description import SENTENCE_EMBEDDING as SENTENCE_EMBEDDING
from .description import EmbeddingDescription as EmbeddingDescription
from .description import describe_embedding as describe_embedding
from .description import description_from as description_from
from .description import description_of as description_of
from .pooling import DenseLayer as DenseLayer
from .pooling import pooled as pooled
from .session import EmbeddingSession as EmbeddingSession
from .session import embedding_session as embedding_session
from .texts import embed_texts as embed_texts
