"""The claim of the stage `import`: the checkpoints that it takes, its steps, and why it refuses others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from drupe.api import NATIVE, Model, ModelError, Stage, registry
from drupe_checkpoints import open_checkpoint
from drupe_model_builder.claims import claim
from drupe_model_builder.finding import family_of, own_families
from drupe_model_builder.plugin import drupe_options
from drupe_model_builder.refused import REFUSED

LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 1000,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 32,
}
FLOAT = Stage("import", {"weights": "float16", "activations": "float32"})


def checkpoint(folder: Path, **config: Any) -> Model:
    (folder / "config.json").write_text(json.dumps({**LLAMA, **config}))
    return Model("hf", folder)


def test_a_known_decoder_is_claimed_with_the_rank_native(tmp_path: Path) -> None:
    claimed = claim(FLOAT, checkpoint(tmp_path))
    assert claimed is not None
    assert claimed.rank == NATIVE
    (step,) = claimed.steps
    assert (step.name, step.config) == ("build-decoder", FLOAT.numerics)
    assert step.options == {"all_logits": "all_logits"}
    fields = registry().passes.make("build-decoder").Config.model_fields
    assert {*step.config, *step.options} <= {*fields}
    assert [option.name for option in drupe_options()] == ["all_logits"]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (
            {"model_type": "blt", "architectures": ["BltForCausalLM"]},
            "'BltForCausalLM' .model_type blt. is not supported",
        ),
        ({"architectures": ["LlamaForSequenceClassification"]}, "does not generate text"),
        ({"rope_scaling": {"rope_type": "polar", "factor": 2.0}}, "polar"),
    ],
)
def test_the_error_for_a_checkpoint_that_cannot_be_built_names_the_reason(
    tmp_path: Path, config: dict[str, Any], words: str
) -> None:
    with pytest.raises(ModelError, match=words):
        claim(FLOAT, checkpoint(tmp_path, **config))


def test_every_decoder_in_transformers_is_built_or_refused_with_a_reason(tmp_path: Path) -> None:
    """Where it is neither, the error could only say that nobody knows it."""
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    unknown = []
    for model_type in set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES) - {*own_families(), *REFUSED}:
        config = json.loads(AutoConfig.for_model(model_type).to_json_string())
        (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": model_type}))
        try:
            family_of(open_checkpoint(tmp_path))
        except ModelError as error:
            if "is not supported: " not in error.what:
                unknown.append(model_type)
    assert not unknown


def test_other_stages_and_kinds_of_models_are_not_claimed(tmp_path: Path) -> None:
    model = checkpoint(tmp_path)
    assert claim(Stage("checkpoint"), model) is None
    assert claim(FLOAT, Model("onnx", tmp_path)) is None
