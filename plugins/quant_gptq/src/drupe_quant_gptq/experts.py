"""Choosing the scheme of experts, and whether GPTQ finds their levels, by the settings of `quantize-gptq`."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from drupe.api import Notice, Record, Target, counted, replace
from drupe_blockquant import Scheme
from drupe_layerwise import Activation, Routing, expert_activation
from drupe_nbits import ExpertSite, expert_scheme, find_experts, method_for
from drupe_onnx import ir
from drupe_packed import rounded_again
from drupe_quant_gptq.schemes import QuantizeGptqConfig, tokens_for

WITHOUT_TEXT = Notice(
    "weights",
    "quantized without calibration",
    "some experts get the levels of the error search: their activation, or how tokens choose them, is not known",
)


class ExpertChoice(Record):
    """How the experts of a node are quantized.

    scheme: None where they stay in floating point. routing, activation: of the node; None where GPTQ does not find the
    levels.
    """

    site: ExpertSite
    scheme: Scheme | None
    routing: Routing | None
    activation: Activation | None

    @property
    def by_gptq(self) -> bool:
        """Whether GPTQ finds the levels."""
        return self.routing is not None and self.activation is not None


def expert_choices(graph: ir.Graph, config: QuantizeGptqConfig, target: Target) -> list[ExpertChoice]:
    """The choice for each node with experts. Levels of 8 bits are rounded to nearest.

    Raises UsageError for experts that the target would support with other settings.
    """
    return [_choice(site, config, target) for site in find_experts(graph)]


def _choice(site: ExpertSite, config: QuantizeGptqConfig, target: Target) -> ExpertChoice:
    found = expert_scheme(site, config.bits, config.symmetric, config.block_size, target, ())
    if found is None:
        return ExpertChoice(site, None, None, None)
    scheme = replace(found, method=method_for(found.bits, "search"))
    if scheme.bits == 8:
        return ExpertChoice(site, scheme, None, None)
    return ExpertChoice(site, scheme, Routing.of(site.node), expert_activation(site.node))


def expert_notices(choices: Collection[ExpertChoice], reached: Mapping[ir.Node, NDArray[np.int64]]) -> list[Notice]:
    """Notices for experts without a calibration, and for those that few tokens of the text reach.

    reached: how many rows each expert of a node runs, where that is known.
    """
    quantized = [each for each in choices if each.scheme is not None and each.scheme.bits < 8]
    unknown = not all(each.by_gptq for each in quantized)
    matrices = (matrix.rows for each in quantized for matrix in each.site.weights)
    return [*([WITHOUT_TEXT] if unknown else []), *rounded_again(matrices), *_few(choices, reached)]


def _few(choices: Collection[ExpertChoice], reached: Mapping[ir.Node, NDArray[np.int64]]) -> list[Notice]:
    """A notice for experts that few tokens reach. Of experts in two nodes, the first node counts."""
    whole = [each.site for each in choices if each.site.node in reached and not each.site.up.is_identity]
    few = [reached[site.node][reached[site.node] < tokens_for(site.up.columns)] for site in whole]
    count, unreached = sum(map(len, few)), sum(int((each == 0).sum()) for each in few)
    if not count:
        return []
    total, wanted = sum(site.up.experts for site in whole), max(tokens_for(site.up.columns) for site in whole)
    none = f", and {unreached} of them by none" if unreached else ""
    what = (
        f"the calibration text reaches {count} of {counted(total, 'expert')} with fewer than {wanted} tokens{none}: "
        "the inputs of all tokens make up for those that they lack"
    )
    return [Notice("weights", "calibrated on few tokens", what, "a longer text reaches more: --calibration-sequences")]
