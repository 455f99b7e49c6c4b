"""Falcon Mamba: Mamba 1 with norms inside the mixer."""

from __future__ import annotations

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.families.mamba import state_spaces


def falcon_mamba(config: Configuration) -> Decoder:
    return state_spaces(config, config.epsilon("mixer_rms_eps", 1e-6))
