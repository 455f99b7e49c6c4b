"""Solar Open: Llama with experts after the first layers, chosen by sigmoids, and a shared one."""

from drupe_model_builder.families.glm4_moe import solar_open

__all__ = ["solar_open"]
