"""IQuest-Coder: Llama with another default of the norms' epsilon."""

from __future__ import annotations

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.families.llama import llama


def iquestcoder(config: Configuration) -> Decoder:
    return llama(config.with_defaults({"rms_norm_eps": 1e-5}))
