"""FlexOLMo: OLMo 2 with experts."""

from drupe_model_builder.families.olmoe import flex_olmo

__all__ = ["flex_olmo"]
