"""IQuest-Coder: Llama under another name."""

from drupe_model_builder.families.llama import llama as iquestcoder

__all__ = ["iquestcoder"]
