"""What `quantize-weights` can be told."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from drupe.api import PassConfig
from drupe_blockquant.scheme import Method
from drupe_nbits import method_for
from drupe_nbits.sites import EMBEDDING, HEAD

Bits = Literal[2, 4, 8]


class QuantizeWeightsConfig(PassConfig):
    """What `quantize-weights` can be told."""

    bits: Bits = Field(4, description="bits of a weight")
    method: Method = Field("search", description="method for 4 and 2 bits; 8 bits are always rounded to nearest")
    block_size: Literal[16, 32, 64, 128, 256] | None = Field(None, description="how many weights share a scale")
    symmetric: bool = Field(False, description="without zero points")
    head_bits: Bits | None = Field(None, description="bits of the head; by default 8")
    embedding_bits: Bits | None = Field(None, description="bits of the embedding; by default those of the head")
    accuracy_level: int | None = Field(
        None, ge=0, le=4, description="accuracy_level of MatMulNBits; by default the target's"
    )

    def bits_for(self, role: str) -> int:
        """The bits for a role. Small models lose most quality in embedding and head, so these get 8 bits by default."""
        head = self.head_bits or 8
        return {HEAD: head, EMBEDDING: self.embedding_bits or head}.get(role, self.bits)

    def method_for(self, bits: int) -> Method:
        return method_for(bits, self.method)

    def gives(self, key: str) -> bool:
        """Whether the user or the recipe has set a key to another value than its default."""
        return key in self.model_fields_set and getattr(self, key) is not None
