"""What plugins for onnxruntime and onnxruntime-genai share."""

from drupe_onnxruntime.refusals import MAKE_AGAIN, not_finite, refuse_no_room
from drupe_onnxruntime.wheels import FATAL, GENAI, INSTALL, ONNXRUNTIME, absence, load

__all__ = [
    "FATAL", "GENAI", "INSTALL", "MAKE_AGAIN", "ONNXRUNTIME", "absence", "load", "not_finite", "refuse_no_room",
]  # fmt: skip
