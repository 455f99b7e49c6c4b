"""Training one stage: AdamW on its scales and norms, towards what the source computes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from drupe.api import Record
from drupe_recover.configuration import RecoverConfig
from drupe_recover.trained import Values, parameters_of

Tensor: TypeAlias = Any  # of torch, which linters do not see
Given = Mapping[str, NDArray[Any]]
L = TypeVar("L", contravariant=True)


class Trainee(Protocol[L]):
    """What is trained: its values, and its loss on a lesson."""

    trained: list[Values]

    def settle(self, settled: bool) -> None:
        """Compute with the values as the package will store them; or again with those that are trained."""

    def loss(self, lesson: L) -> Tensor: ...


class Lesson(Record):
    """What a stage reads, by name, and what should come out: for one batch of sequences."""

    given: Given
    target: Callable[[], NDArray[Any]]


def loss_of(made: Tensor, target: Tensor) -> Tensor:
    """The mean over tokens of the squared error relative to the size of the hidden state, as later norms see it."""
    error = (made - target).square().sum(-1)
    return (error / target.square().sum(-1).clamp(min=1e-12)).mean()


def divergence(made: Tensor, target: Tensor) -> Tensor:
    """The mean over tokens of KL(target || made), of logits."""
    wanted = target.log_softmax(-1)
    return (wanted.exp() * (wanted - made.log_softmax(-1))).sum(-1).mean()


def mean_loss(trainee: Trainee[L], lessons: Sequence[L]) -> float:
    with torch.no_grad():
        return sum(float(trainee.loss(each)) for each in lessons) / len(lessons)


def train(
    trainee: Trainee[L],
    learned: Sequence[L],
    held_out: Sequence[L],
    config: RecoverConfig,
    seed: int,
    step_done: Callable[[], None],
) -> tuple[float, float]:
    """Train the values. Returns the losses on what is held out: before, and now with the values as stored.

    What came of it is undone where the loss has not fallen.
    """
    trainee.settle(True)
    before = mean_loss(trainee, held_out)
    trainee.settle(False)
    parameters = list(parameters_of(trainee.trained))
    first = [each.detach().clone() for each in parameters]
    steps = config.epochs * len(learned)
    optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * step / steps)))
    order = np.random.default_rng(seed)
    for _ in range(config.epochs):
        for at in order.permutation(len(learned)).tolist():
            optimizer.zero_grad(set_to_none=True)
            loss = trainee.loss(learned[at])
            if loss.requires_grad:  # not where the router sends no row of the batch to these experts
                loss.backward()
                optimizer.step()
            schedule.step()
            step_done()
    trainee.settle(True)
    after = mean_loss(trainee, held_out)
    if not after < before:
        with torch.no_grad():
            for each, value in zip(parameters, first, strict=True):
                each.copy_(value)
    return before, after
