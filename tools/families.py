"""Writes the table of families into docs/families.md, from the cases that the tests run: `python tools/families.py`."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "families.md"
MARK = "<!-- table: python3 tools/families.py -->"
BUILT_FOR = {"cuda": "float16", "dml": "float16"}
"""The providers that no test runs on, with the type that their default precision computes in."""
HEADER = (
    "`model_type`",
    "what it is",
    "checked with",
    "run on `cpu` in",
    *(f"built for `{each}`" for each in BUILT_FOR),
)
RUN_IN, RUN_EMBEDDINGS = "genai, onnxruntime", "onnxruntime"
"""tests/test_families.py generates in the first, test_model_builder_logits.py compares logits in the second."""


def page() -> str:
    """The page with the table as it should be."""
    text, mark, _ = PAGE.read_text(encoding="utf-8").partition(MARK)
    return f"{text}{mark}\n{table()}"


def table() -> str:
    """One row for each family: what it is, what its cases turn on, where they run, and for what they can be built."""
    sys.path.insert(0, str(ROOT / "tests" / "support"))
    import decoder_families

    from drupe_model_builder.finding import own_families, summary_of

    shown: dict[str, list[str]] = {}
    built: dict[str, list[Mapping[str, bool]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, case) in enumerate(decoder_families.EVERY_CASE.items()):
            family = decoder_families.model_type_of(name)
            shown.setdefault(family, []).append(case.shows)
            checkpoint = decoder_families.write_configuration(name, Path(folder) / str(number))
            built.setdefault(family, []).append(built_for(checkpoint))
    rows = [HEADER, ["---"] * len(HEADER)]
    for name in own_families():
        for_providers = [_in_words([each[provider] for each in built[name]]) for provider in BUILT_FOR]
        run_in = RUN_EMBEDDINGS if name in decoder_families.EMBEDDERS else RUN_IN
        rows.append((f"`{name}`", summary_of(name), "; ".join(shown[name]), run_in, *for_providers))
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def built_for(checkpoint: Path) -> Mapping[str, bool]:
    """Whether the newest table of each provider has all operators of a decoder, of which there is only config.json."""
    import numpy as np

    from drupe.api import registry
    from drupe_checkpoints import open_checkpoint
    from drupe_model_builder.checkpoint_tensors import DecoderWeights
    from drupe_model_builder.finding import composition_of
    from drupe_model_builder.lacking_operators import builds
    from drupe_onnx import Array, TableProvider

    decoder = composition_of(open_checkpoint(checkpoint))
    tensors = {name: Array(np.zeros(shape, np.float32)) for name, shape in decoder.tensors().items()}
    weights = DecoderWeights(tensors, decoder)
    providers = {name: registry().provider(name) for name in BUILT_FOR}
    tables = {name: each.capabilities(None) for name, each in providers.items() if isinstance(each, TableProvider)}
    return {name: builds(weights, activations, tables[name]) for name, activations in BUILT_FOR.items()}


def _in_words(built: list[bool]) -> str:
    """Whether each case of a family can be built, in the order in which the table tells them."""
    if len(set(built)) == 1:
        return "yes" if built[0] else "no"
    return "; ".join("yes" if each else "no" for each in built)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
