"""Text for calibration and evaluation: what is read, its fingerprint, and its tokens."""

from drupe_text.calibrating import CalibratingPass
from drupe_text.settings import CalibrationConfig, Reference
from drupe_text.text import Text
from drupe_text.tokens import TextTokenizer

__all__ = ["CalibratingPass", "CalibrationConfig", "Reference", "Text", "TextTokenizer"]
