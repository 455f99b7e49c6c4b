"""Packages made by the passes run in onnxruntime-genai."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from drupe.api import CheckFailed, Model, ModelError, Target, UsageError
from drupe_decoding import Generation, Message

og = pytest.importorskip("onnxruntime_genai")

from drupe_onnxruntime.genai.runtime import OnnxRuntimeGenai  # noqa: E402


def opened(model: Model, target: Target, **options: Any) -> Any:
    return OnnxRuntimeGenai().open(model, target, **options)


def scripted(kit: SimpleNamespace, folder: Path, cpu: Target, answer: str, end: bool = True, **settings: Any) -> Model:
    """A package that answers "go" with `answer`, a text whose tokens all differ."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(kit.tokenizer_file())
    script = [tokenizer.encode("go", add_special_tokens=False).ids[-1]]
    script += tokenizer.encode(answer, add_special_tokens=False).ids
    script += [tokenizer.token_to_id("<|end|>")] if end else []
    model: Model = kit.make_package(
        kit.make_checkpoint(folder / "checkpoint", script=script, **settings), folder / "package", cpu
    )
    return model


@pytest.mark.parametrize("model_type", ["llama", "qwen3", "mistral"])
def test_greedy_text_equals_that_of_transformers(
    kit: SimpleNamespace, tmp_path: Path, cpu: Target, model_type: str
) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    checkpoint = kit.make_checkpoint(tmp_path / "checkpoint", model_type)
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    prompt = tokenizer("def parse(", return_tensors="pt")
    tokens = model.generate(**prompt, max_new_tokens=24, do_sample=False, pad_token_id=0)[
        0, prompt.input_ids.shape[1] :
    ]
    with opened(kit.make_package(checkpoint, tmp_path / "package", cpu), cpu) as session:
        assert session.encode("def parse(") == prompt.input_ids[0].tolist()
        got = session.generate("def parse(", Generation(max_new_tokens=24))
    assert got == tokenizer.decode(tokens)


def test_logits_of_the_last_token_or_of_all_give_the_same_text(
    kit: SimpleNamespace, checkpoint: Path, package: Model, tmp_path: Path, cpu: Target
) -> None:
    whole = kit.make_package(checkpoint, tmp_path / "package", cpu, all_logits=True)
    with opened(package, cpu) as last, opened(whole, cpu) as every:
        assert last.generate("def parse(") == every.generate("def parse(") != ""


def test_a_plain_onnxruntime_genai_script_runs_the_package(package: Model, cpu: Target) -> None:
    model = og.Model(str(package.location))
    tokenizer = og.Tokenizer(model)
    parameters = og.GeneratorParams(model)
    parameters.set_search_options(max_length=20)
    generator = og.Generator(model, parameters)
    generator.append_tokens(tokenizer.encode("def parse("))
    while not generator.is_done():
        generator.generate_next_token()
    assert 1 < len(generator.get_sequence(0)) <= 20


def test_characters_of_several_tokens_are_streamed_whole(kit: SimpleNamespace, tmp_path: Path, cpu: Target) -> None:
    with opened(scripted(kit, tmp_path, cpu, "é∑日😀"), cpu) as session:
        pieces = list(session.stream("go"))
        assert pieces == ["é", "∑", "日", "😀"]
        assert session.timing.new_tokens == len("é∑日😀".encode()) + 1


def test_an_incomplete_character_at_the_limit_of_tokens_is_left_out(
    kit: SimpleNamespace, tmp_path: Path, cpu: Target
) -> None:
    with opened(scripted(kit, tmp_path, cpu, "é😀"), cpu) as session:
        assert session.generate("go", Generation(max_new_tokens=4)) == "é"


def test_an_answer_stops_at_any_end_token_and_does_not_contain_it(
    kit: SimpleNamespace, tmp_path: Path, cpu: Target
) -> None:
    model = scripted(kit, tmp_path, cpu, "ab!cd", eos_token_id=[1, 8])
    with opened(model, cpu) as session:
        assert 8 in json.loads((model.location / "genai_config.json").read_text())["model"]["eos_token_id"]
        bang = int(session.encode("!")[-1])
    config = model.location / "genai_config.json"
    config.write_text(config.read_text().replace(" 8\n", f" {bang}\n"))
    with opened(model, cpu) as session:
        assert session.generate("go") == "ab"


def test_the_prompt_is_encoded_with_one_beginning_of_sequence(package: Model, cpu: Target) -> None:
    with opened(package, cpu) as session:
        plain = session.encode("def")
        assert plain[0] == 0
        assert plain.count(0) == 1
        assert session.encode("<|bos|>def") == plain


def test_max_length_limits_prompt_and_answer_together(package: Model, cpu: Target) -> None:
    with opened(package, cpu, max_length=16) as session:
        list(session.stream("def parse("))
        timing = session.timing
        assert timing.prompt_tokens + timing.new_tokens <= 16


def test_the_error_for_a_prompt_without_room_for_an_answer_names_both_numbers(package: Model, cpu: Target) -> None:
    with opened(package, cpu, max_length=16) as session, pytest.raises(UsageError, match=r"takes 101 tokens.*for 16"):
        session.stream("~" * 100)


def test_a_sampled_text_is_repeated_only_with_the_same_seed(package: Model, cpu: Target) -> None:
    def sample(seed: int) -> str:
        text: str = session.generate("def", Generation(max_new_tokens=16, temperature=1.0, seed=seed))
        return text

    with opened(package, cpu) as session:
        assert sample(1) == sample(1) != sample(2)


def test_sampling_with_top_k_of_one_is_greedy(package: Model, cpu: Target) -> None:
    with opened(package, cpu) as session:
        greedy = session.generate("def", Generation(max_new_tokens=16))
        assert session.generate("def", Generation(max_new_tokens=16, temperature=2.0, top_k=1)) == greedy
        assert session.generate("def", Generation(max_new_tokens=4, temperature=1.0, top_k=10**6, top_p=0.5)) != ""


def test_an_interrupted_answer_does_not_change_the_next_one(package: Model, cpu: Target) -> None:
    with opened(package, cpu) as session:
        whole = session.generate("def")
        stream = session.stream("def")
        next(stream)
        with pytest.raises(KeyboardInterrupt):
            stream.throw(KeyboardInterrupt)
        assert session.generate("def") == whole


def test_a_conversation_is_rendered_by_the_chat_template(package: Model, cpu: Target) -> None:
    with opened(package, cpu) as session:
        prompt = session.conversation([Message("system", "be\nbrief"), Message("user", 'say "é"')])
        assert prompt == '<|bos|><|system|>be\nbrief<|end|><|user|>say "é"<|end|><|assistant|>'
        assert session.encode(prompt).count(0) == 1


def test_a_conversation_without_a_chat_template_is_an_error(kit: SimpleNamespace, tmp_path: Path, cpu: Target) -> None:
    model = kit.make_package(kit.make_checkpoint(tmp_path / "c", template=None), tmp_path / "p", cpu)
    with opened(model, cpu) as session, pytest.raises(ModelError, match="no chat template"):
        session.conversation([Message("user", "hello")])


def test_a_template_that_the_runtime_cannot_use_is_an_error(kit: SimpleNamespace, tmp_path: Path, cpu: Target) -> None:
    broken = kit.make_checkpoint(tmp_path / "c", template="{{ raise_exception('only one turn') }}")
    model = kit.make_package(broken, tmp_path / "p", cpu)
    with opened(model, cpu) as session, pytest.raises(ModelError, match="only one turn"):
        session.conversation([Message("user", "hello")])


def test_logits_that_are_not_finite_fail_the_check_if_it_requires_finite_ones(
    kit: SimpleNamespace, tmp_path: Path, cpu: Target
) -> None:
    def overflow(weights: dict[str, np.ndarray]) -> None:
        weights["lm_head.weight"] *= 1e38

    model = kit.make_package(kit.make_checkpoint(tmp_path / "c", edit=overflow), tmp_path / "p", cpu)
    with opened(model, cpu) as session:
        with pytest.raises(CheckFailed, match="not finite"):
            session.generate("def", Generation(validate=True))
        session.generate("def", Generation(max_new_tokens=2))


def test_finite_logits_pass_and_give_the_same_text(package: Model, cpu: Target) -> None:
    with opened(package, cpu) as session:
        assert session.generate("def", Generation(validate=True)) == session.generate("def")


@pytest.mark.parametrize("broken", ["model.onnx", "model.onnx.data"])
def test_a_damaged_package_is_one_error_and_the_runtime_prints_nothing(
    package: Model, tmp_path: Path, cpu: Target, broken: str, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(package.location, tmp_path / "package")
    path = folder / broken
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckFailed, match="onnxruntime-genai cannot"):
        opened(Model("onnx", folder), cpu)
    assert capfd.readouterr() == ("", "")


def test_a_damaged_tokenizer_is_one_error(package: Model, tmp_path: Path, cpu: Target) -> None:
    folder = shutil.copytree(package.location, tmp_path / "package")
    (folder / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes()[:100])
    with pytest.raises(ModelError, match=r"tokenizer\.json cannot be read"):
        opened(Model("onnx", folder), cpu)


def test_a_prompt_with_a_token_that_the_model_does_not_have_names_it(
    package: Model, tmp_path: Path, cpu: Target
) -> None:
    folder = shutil.copytree(package.location, tmp_path / "package")
    config = json.loads((folder / "genai_config.json").read_text())
    config["model"]["vocab_size"] = 1
    (folder / "genai_config.json").write_text(json.dumps(config))
    with opened(Model("onnx", folder), cpu) as session, pytest.raises(UsageError, match=r"has the token .+, which"):
        session.generate("def")


def test_a_run_that_fails_is_one_error_and_the_runtime_prints_nothing(
    package: Model, cpu: Target, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(package, cpu) as session:
        monkeypatch.setattr(session, "encode", lambda prompt: [10**6])
        monkeypatch.setattr(session, "vocabulary", 10**7)
        with pytest.raises(CheckFailed, match="cannot run the package"):
            session.generate("def")
    assert capfd.readouterr() == ("", "")


def test_options_of_the_pass_are_written_into_the_package(
    kit: SimpleNamespace, checkpoint: Path, tmp_path: Path, cpu: Target
) -> None:
    model = kit.make_package(checkpoint, tmp_path / "package", cpu, max_length=40, threads=2)
    config = json.loads((model.location / "genai_config.json").read_text())
    assert config["search"]["max_length"] == 40
    assert config["model"]["decoder"]["session_options"]["intra_op_num_threads"] == 2
    assert config["search"]["past_present_share_buffer"] is True
    with opened(model, cpu) as session:
        assert session.max_length == 40
    with opened(model, cpu, max_length=10**6) as session:
        assert session.max_length == 256


def test_rows_of_tokens_continue_beyond_the_end_token_and_alike_in_both_runtimes(
    kit: SimpleNamespace, tmp_path: Path, cpu: Target
) -> None:
    from drupe_onnxruntime.plain.runtime import OnnxRuntime

    model = scripted(kit, tmp_path, cpu, "one")
    rows = np.random.default_rng(3).integers(2, 512, (2, 5))
    with opened(model, cpu, threads=1) as session, OnnxRuntime().open(model, cpu) as plain:
        assert session.threads == 1
        steps, others = ([each.tolist() for each in it.continue_tokens(rows, 40)] for it in (session, plain))
    end = 1  # onnxruntime-genai takes the next likeliest token in its place
    assert [end] * 2 in others and all(end not in step for step in steps)
    before = others.index([end] * 2)
    assert steps[:before] == others[:before] != []
    assert len(steps) == len(others) == 40


def test_the_threads_of_a_session_are_those_of_the_package(kit: SimpleNamespace, tmp_path: Path, cpu: Target) -> None:
    model = scripted(kit, tmp_path, cpu, "one")
    file = model.location / "genai_config.json"
    config = json.loads(file.read_text())
    for threads in (3, None):
        session_options = config["model"]["decoder"]["session_options"]
        session_options.pop("intra_op_num_threads", None)
        session_options |= {"intra_op_num_threads": threads} if threads else {}
        file.write_text(json.dumps(config))
        with opened(model, cpu) as session:
            assert session.threads == threads
