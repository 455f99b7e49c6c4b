"""Training one block: AdamW on its scales and norms, towards the outputs of the same block of the source."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from drupe.api import Record
from drupe_recover.block import Block
from drupe_recover.configuration import RecoverConfig
from drupe_recover.trained import parameters_of

Tensor: TypeAlias = Any  # of torch, which linters do not see
Given = Mapping[str, NDArray[Any]]


class Lesson(Record):
    """What a block reads, by name, and the hidden states that should come out: for one batch of sequences."""

    given: Given
    wanted: Given

    def target(self, block: Block, device: torch.device) -> Tensor:
        """The sum of the hidden states that the block makes in torch: float32 [batch, tokens, features]."""
        names = block.names if block.without else self.wanted
        summed = np.sum([self.wanted[name].astype(np.float32) for name in names], axis=0)
        return torch.from_numpy(summed).to(device)


def loss_of(made: Tensor, target: Tensor) -> Tensor:
    """The mean over tokens of the squared error relative to the size of the hidden state, as later norms see it."""
    error = (made - target).square().sum(-1)
    return (error / target.square().sum(-1).clamp(min=1e-12)).mean()


def mean_loss(block: Block, lessons: Sequence[Lesson], device: torch.device) -> float:
    with torch.no_grad():
        return sum(float(loss_of(block(each.given), each.target(block, device))) for each in lessons) / len(lessons)


def train(
    block: Block,
    learned: Sequence[Lesson],
    held_out: Sequence[Lesson],
    config: RecoverConfig,
    seed: int,
    device: torch.device,
    step_done: Callable[[], None],
) -> tuple[float, float]:
    """Train the block's values. Returns its losses on what is held out: before, and now with the values as stored.

    What came of it is undone where the loss has not fallen.
    """
    block.settle(True)
    before = mean_loss(block, held_out, device)
    block.settle(False)
    parameters = list(parameters_of(block.trained))
    first = [each.detach().clone() for each in parameters]
    steps = config.epochs * len(learned)
    optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * step / steps)))
    order = np.random.default_rng(seed)
    for _ in range(config.epochs):
        for at in order.permutation(len(learned)).tolist():
            optimizer.zero_grad(set_to_none=True)
            loss_of(block(learned[at].given), learned[at].target(block, device)).backward()
            optimizer.step()
            schedule.step()
            step_done()
    block.settle(True)
    after = mean_loss(block, held_out, device)
    if not after < before:
        with torch.no_grad():
            for each, value in zip(parameters, first, strict=True):
                each.copy_(value)
    return before, after
