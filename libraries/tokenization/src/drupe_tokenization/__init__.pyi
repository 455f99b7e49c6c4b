"""The public names and their homes; each home is loaded when one of its names is first used."""

from .awkward_texts import awkward_texts as awkward_texts
from .chat_template import TemplateRefusal as TemplateRefusal
from .chat_template import apply_chat_template as apply_chat_template
from .chat_template import environment as environment
from .chat_template import render as render
from .comparison import Comparison as Comparison
from .comparison import Difference as Difference
from .comparison import Reading as Reading
from .comparison import Reference as Reference
from .conversations import Conversation as Conversation
from .conversations import conversations as conversations
from .document import TokenizerDocument as TokenizerDocument
from .json_files import object_in as object_in
from .json_files import read_object as read_object
from .reference import LARGE_PAGES as LARGE_PAGES
from .reference import ReferenceProcess as ReferenceProcess
from .template_files import DEFAULT as DEFAULT
from .template_files import FOR_TOOLS as FOR_TOOLS
from .template_files import TEMPLATE as TEMPLATE
from .template_files import ChatTemplates as ChatTemplates
from .template_files import chat_templates as chat_templates
from .template_files import file_of as file_of
from .template_files import templates_in_folder as templates_in_folder
from .token_texts import special_tokens as special_tokens
from .tokenizer import TextStream as TextStream
from .tokenizer import Tokenizer as Tokenizer
