"""Both runtimes follow generation_config.json: greedy text equals that of transformers' generate()."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from tiny import make_checkpoint

from drupe.api import Context, Model, Target
from drupe_decoding import Generation

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxruntime_genai")
transformers = pytest.importorskip("transformers")

PROMPT, NEW_TOKENS = "def parse(text)", 16
END = 1

# Settings, chosen for the text that the model generates without them.
RULES: Mapping[str, Callable[[list[int]], dict[str, Any]]] = {
    "suppressed": lambda written: {"suppress_tokens": [*written[:2], 9999]},
    "suppressed at first": lambda written: {"begin_suppress_tokens": written[:1]},
    "bad words": lambda written: {"bad_words_ids": [written[:1], written[2:4]]},
    "an end among the bad words": lambda written: {"eos_token_id": written[2], "bad_words_ids": [written[2:3]]},
    "penalty": lambda written: {"repetition_penalty": 1.5},
    "n-grams": lambda written: {"no_repeat_ngram_size": 1},
    "rules of both": lambda written: {
        "repetition_penalty": 1.5, "no_repeat_ngram_size": 1, "suppress_tokens": written[1:2]
    },
    "least length": lambda written: {"eos_token_id": written[1], "min_length": 16},
    "least new tokens": lambda written: {"eos_token_id": written[1:3], "min_new_tokens": 5},
    "last token": lambda written: {"forced_eos_token_id": 70},
    "biases": lambda written: {"sequence_bias": [[[75], 5.0], [[written[0], 76], 20.0], [written[1:2], -3.0]]},
    "decay": lambda written: {"eos_token_id": 77, "exponential_decay_length_penalty": [3, 1.7]},
}  # fmt: skip


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that generates whole characters only, because runtimes show incomplete ones differently."""
    from safetensors.numpy import load_file, save_file
    from tokenizers import Tokenizer

    folder = make_checkpoint(tmp_path_factory.mktemp("rules") / "checkpoint", tie_word_embeddings=False)
    tokenizer, weights = Tokenizer.from_file(str(folder / "tokenizer.json")), load_file(folder / "model.safetensors")
    for token, row in enumerate(weights["lm_head.weight"]):
        if not tokenizer.decode([token]).isprintable() or not tokenizer.decode([token]).isascii():
            row[:] = 0
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def generate(source: Path) -> Any:
    """The tokens that transformers' generate() gives with these settings."""
    import torch

    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    model = transformers.AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    prompt = tokenizer(PROMPT, return_tensors="pt")

    def tokens(settings: Mapping[str, Any]) -> list[int]:
        model.generation_config = transformers.GenerationConfig.from_dict(dict(settings))
        made = model.generate(**prompt, max_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=0, tokenizer=tokenizer)
        found: list[int] = made[0, prompt.input_ids.shape[1] :].tolist()
        return found

    return tokens


def with_settings(
    source: Path, target: Target, folder: Path, settings: Mapping[str, Any] | None, **config: Any
) -> Model:
    """The package of a checkpoint with another generation_config.json (None: without one), and keys in config.json."""
    from drupe_model_builder.build_decoder import BuildDecoder, BuildDecoderConfig
    from drupe_onnx import write_package
    from drupe_onnxruntime.genai.package_genai import PackageGenai, PackageGenaiConfig

    checkpoint, out = folder / "checkpoint", folder / "package"
    checkpoint.mkdir()
    out.mkdir()
    for path in source.iterdir():
        if path.name != "generation_config.json":
            (checkpoint / path.name).symlink_to(path)
    if settings is not None:
        (checkpoint / "generation_config.json").write_text(json.dumps(settings))
    changed = {**json.loads((source / "config.json").read_text()), **config}
    (checkpoint / "config.json").unlink()
    (checkpoint / "config.json").write_text(json.dumps(changed))
    context = Context(target, out, threads=1)
    built = BuildDecoder().run(Model("hf", checkpoint), BuildDecoderConfig(), context)
    packaged = PackageGenai().run(built, PackageGenaiConfig(), context)
    write_package(packaged.payload, out, context)
    return packaged.but(location=out, payload=None)


def answers(package: Model, target: Target) -> Iterator[str]:
    from drupe_onnxruntime.genai.runtime import OnnxRuntimeGenai
    from drupe_onnxruntime.plain.runtime import OnnxRuntime

    for runtime in (OnnxRuntimeGenai(), OnnxRuntime()):
        with runtime.open(package, target) as session:
            yield session.generate(PROMPT, Generation(max_new_tokens=NEW_TOKENS))


def text_of(source: Path, tokens: list[int], ends: Any) -> str:
    """The text of an answer without the end token, like a session's."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    listed = ends if isinstance(ends, list) else [ends]
    kept = tokens[:-1] if tokens[-1] in listed else tokens
    return str(tokenizer.decode(kept, skip_special_tokens=True))


@pytest.mark.parametrize("name", RULES)
def test_greedy_text_equals_that_of_generate(
    name: str, source: Path, generate: Any, cpu: Target, tmp_path: Path
) -> None:
    written = generate({"eos_token_id": END})
    settings = {"eos_token_id": END, **RULES[name](written)}
    tokens = generate(settings)
    assert tokens != written  # otherwise the rule would have no effect here
    expected = text_of(source, tokens, settings["eos_token_id"])
    assert list(answers(with_settings(source, cpu, tmp_path, settings), cpu)) == [expected, expected]


def test_without_an_end_token_in_generation_config_json_no_token_ends_the_answer(
    source: Path, generate: Any, cpu: Target, tmp_path: Path
) -> None:
    written = generate({"eos_token_id": END})
    expected = text_of(source, written, END)
    package = with_settings(source, cpu, tmp_path, {"temperature": 0.7}, eos_token_id=written[2], bos_token_id=99)
    assert list(answers(package, cpu)) == [expected, expected]


def test_an_answer_ends_after_a_stop_string(source: Path, generate: Any, cpu: Target, tmp_path: Path) -> None:
    stop = text_of(source, generate({"eos_token_id": END})[:2], END)[-2:]
    settings = {"eos_token_id": END, "stop_strings": [stop]}
    expected = text_of(source, generate(settings), END)
    assert stop in expected
    assert list(answers(with_settings(source, cpu, tmp_path, settings), cpu)) == [expected, expected]


def test_settings_in_config_json_count_without_generation_config_json(
    source: Path, generate: Any, cpu: Target, tmp_path: Path
) -> None:
    rules = {"suppress_tokens": generate({"eos_token_id": END})[:1]}
    expected = text_of(source, generate({"eos_token_id": END, **rules}), END)
    assert list(answers(with_settings(source, cpu, tmp_path, None, **rules), cpu)) == [expected, expected]


def test_rules_that_plain_scripts_do_not_follow_give_a_notice(source: Path, cpu: Target, tmp_path: Path) -> None:
    settings = {
        "eos_token_id": END, "suppress_tokens": [5], "repetition_penalty": 1.1, "num_beams": 4, "min_p": 0.1
    }  # fmt: skip
    served, ignored = with_settings(source, cpu, tmp_path, settings).notices
    assert (served.handling, ignored.handling) == ("served by Drupe only", "has no effect")
    assert served.what.startswith("suppress_tokens: ")
    assert ignored.what.startswith("num_beams = 4: ")  # min_p has an effect only with sampling, which is off


def test_ordinary_settings_give_no_notice(source: Path, cpu: Target, tmp_path: Path) -> None:
    settings = {
        "_from_model_config": True, "bos_token_id": 0, "do_sample": True, "eos_token_id": [1, 2], "pad_token_id": 1,
        "repetition_penalty": 1.05, "temperature": 0.7, "top_k": 20, "top_p": 0.8, "max_length": 4096, "min_p": 0,
        "transformers_version": "5.0.0", "num_beams": 1, "bad_words_ids": None, "typical_p": 1.0,
    }  # fmt: skip
    assert with_settings(source, cpu, tmp_path, settings).notices == ()


def test_settings_in_config_json_are_told_with_that_file(source: Path, cpu: Target, tmp_path: Path) -> None:
    package = with_settings(source, cpu, tmp_path, None, num_beams=4, do_sample=True, temperature="hot")
    told = [(notice.about, notice.what.split(":")[0]) for notice in package.notices]
    assert told == [("config.json", "num_beams = 4"), ("config.json", 'temperature = "hot"')]
    assert json.loads((package.location / "genai_config.json").read_text())["search"]["do_sample"] is True


def test_settings_in_config_json_beside_generation_config_json_are_told(
    source: Path, cpu: Target, tmp_path: Path
) -> None:
    package = with_settings(source, cpu, tmp_path, {"eos_token_id": END}, suppress_tokens=[5], temperature=1.0)
    (notice,) = package.notices
    assert (notice.about, notice.handling) == ("config.json", "has no effect")
    assert notice.what == "suppress_tokens = [5]: generation_config.json counts, as in transformers"


def test_a_token_beyond_the_vocabulary_is_told_and_ends_nothing(source: Path, cpu: Target, tmp_path: Path) -> None:
    (notice,) = with_settings(source, cpu, tmp_path, {"eos_token_id": [END, 99_999]}).notices
    assert notice.what.startswith("eos_token_id = 99999: the model's tokens are 0 to ")
