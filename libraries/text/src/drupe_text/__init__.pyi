"""The public names and their homes; each home is loaded when one of its names is first used."""

from .calibrating import CalibratingPass as CalibratingPass
from .settings import CalibrationConfig as CalibrationConfig
from .settings import Reference as Reference
from .text import Text as Text
from .tokens import TextTokenizer as TextTokenizer
