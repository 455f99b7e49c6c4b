"""Products with packed matrices in torch, for training: gradients pass through them, and no float matrix is kept.

torch is imported here, so only passes that have asked for it import this module.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import torch

from drupe.api import Record

Tensor: TypeAlias = Any  # of torch, which linters do not see
WEIGHTS_AT_ONCE = 8 << 20
"""How many weights of a matrix are made in floating point at a time."""


class Levels(Record):
    """A quantized matrix [N, K] without its scales: (level - zero point), as packed bytes.

    packed: uint8 [N, blocks, bytes of a block]. zero_points: [N, blocks]; None for the middle level.
    """

    packed: Tensor
    zero_points: Tensor | None
    bits: int
    columns: int

    def differences(self, rows: slice) -> Tensor:
        """Levels minus zero points of some rows: float32 [rows, blocks, block size]."""
        levels = unpacked(self.packed[rows], self.bits).float()
        return levels.sub_(
            float(1 << (self.bits - 1)) if self.zero_points is None else self.zero_points[rows][..., None].float()
        )

    def matrix(self, scales: Tensor, rows: slice) -> Tensor:
        """Some rows of the float matrix, [rows, K]."""
        return self.scaled(self.differences(rows), scales[rows])

    def scaled(self, differences: Tensor, scales: Tensor) -> Tensor:
        """Rows of levels with their scales, [rows, K]: the padding of the last block is cut off."""
        return (differences * scales[..., None]).flatten(1)[:, : self.columns]

    @property
    def bands(self) -> list[slice]:
        """The ranges of rows that are made in floating point one after another."""
        step = max(1, WEIGHTS_AT_ONCE // max(1, self.columns))
        return [slice(start, start + step) for start in range(0, len(self.packed), step)]


def unpacked(packed: Tensor, bits: int) -> Tensor:
    """Levels of packed bytes: the last axis becomes 8 / bits times as long."""
    if bits == 8:
        return packed
    parts = [(packed >> shift) & ((1 << bits) - 1) for shift in range(0, 8, bits)]
    return torch.stack(parts, -1).flatten(-2)


class Product(torch.autograd.Function):  # type: ignore[misc]
    """x @ W.T for W = differences * scales. Only x, scales and packed levels are kept for the way back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scales: Tensor, levels: Levels) -> Tensor:
        ctx.save_for_backward(x if scales.requires_grad else None, scales)
        ctx.levels = levels
        made = [x @ levels.matrix(scales, rows).to(x.dtype).T for rows in levels.bands]
        return made[0] if len(made) == 1 else torch.cat(made, -1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, scales = ctx.saved_tensors
        levels: Levels = ctx.levels
        to_x = to_scales = None
        for rows in levels.bands:
            differences, part = levels.differences(rows), gradient[..., rows]
            if ctx.needs_input_grad[0]:
                own = part @ levels.scaled(differences, scales[rows]).to(part.dtype)
                to_x = own if to_x is None else to_x + own
            if ctx.needs_input_grad[1]:
                of_rows = part.flatten(0, -2).T @ x.flatten(0, -2)
                padded = torch.nn.functional.pad(of_rows, (0, differences[0].numel() - levels.columns))
                own = (padded.view_as(differences) * differences).sum(-1)
                to_scales = own if to_scales is None else torch.cat([to_scales, own])
        return to_x, to_scales, None
