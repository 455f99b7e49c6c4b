"""What `quantize-weights` can be told."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from drupe.api import PassConfig
from drupe_blockquant.scheme import Method
from drupe_nbits import method_for
from drupe_nbits.sites import EMBEDDING, HEAD

Bits = Literal[2, 4, 8]


def useless_weights(method: Method) -> str:
    """Why channels need not be weighed for a method."""
    return f"the method '{method}' does not go by the weights of channels"


class QuantizeWeightsConfig(PassConfig):
    """What `quantize-weights` can be told."""

    bits: Bits = Field(4, description="bits of a weight")
    quality: Literal["fast", "balanced", "best"] = Field(
        "balanced", description="round to nearest, or search for least error; 8 bits are always rounded to nearest"
    )
    method: Method | None = Field(None, description="how 4 and 2 bits are found; by default as the quality says")
    block_size: Literal[16, 32, 64, 128, 256] | None = Field(None, description="weights that share a scale")
    symmetric: bool = Field(False, description="without zero points")
    head_bits: Bits | None = Field(None, description="bits of the head; by default 8")
    embedding_bits: Bits | None = Field(None, description="bits of the embedding; by default those of the head")
    accuracy_level: int | None = Field(None, ge=0, le=4, description="of MatMulNBits; by default the target's")
    prepare: str | tuple[str, ...] | None = Field(None, description="what was asked to be done to the weights before")

    @field_validator("prepare")
    @classmethod
    def _weighs_for_a_search(cls, prepare: Collection[str] | None, info: ValidationInfo) -> Collection[str] | None:
        """Refuse before anything is measured, not when the weights are written."""
        method = method_for(4, info.data.get("quality", "balanced"), info.data.get("method"))
        if "weigh" in (prepare or ()) and method != "search":
            raise ValueError(useless_weights(method))
        return prepare

    def bits_for(self, role: str) -> int:
        """Small models lose most through their embedding and head, so these get 8 bits unless told otherwise."""
        head = self.head_bits or 8
        return {HEAD: head, EMBEDDING: self.embedding_bits or head}.get(role, self.bits)

    def method_for(self, bits: int) -> Method:
        return method_for(bits, self.quality, self.method)

    def gives(self, key: str) -> bool:
        """Whether a key was set, by the user or the recipe, and is no default."""
        return key in self.model_fields_set and getattr(self, key) is not None
