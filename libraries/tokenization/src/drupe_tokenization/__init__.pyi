"""The public names and their homes; each home is loaded when one of its names is first used."""

from .chat_template import apply_chat_template as apply_chat_template
from .json_files import read_object as read_object
from .tokenizer import TextStream as TextStream
from .tokenizer import Tokenizer as Tokenizer
