"""Settings of a quantizing pass that have no effect because an earlier pass has set the schemes of matrices."""

from __future__ import annotations

from collections.abc import Iterable

from drupe.api import PassConfig, UsageError
from drupe_nbits.sites import Site

USUAL_BITS = 4
"""The bits that recipes ask for where an earlier pass may give a matrix others."""


def refuse_overruled(sites: Iterable[Site], config: PassConfig) -> None:
    """Raise UsageError for a setting that a scheme set by an earlier pass overrules.

    config: of a quantizing pass. Of its keys, those that were set count: bits, symmetric, block_size, head_bits,
    embedding_bits.
    """
    given = {key: getattr(config, key) for key in config.model_fields_set}
    schemes = [site.scheme for site in sites if site.scheme is not None]
    if not schemes:
        return
    fixed = {
        "bits": given.get("bits", USUAL_BITS) != USUAL_BITS,
        "symmetric": "symmetric" in given and any(scheme.symmetric != given["symmetric"] for scheme in schemes),
        **{key: given.get(key) is not None for key in ("block_size", "head_bits", "embedding_bits")},
    }
    for key in (key for key, overruled in fixed.items() if overruled):
        raise UsageError(
            f"{key} = {given[key]} has no effect: an earlier pass, such as allocate-bits, has set each matrix's scheme",
            cure="set it for that pass as well, or leave that pass out (--quality fast)",
        )
