"""Graphs run in onnxruntime, and decoders generate text."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tiny import VOCABULARY

from drupe.api import CheckFailed, Model, ModelError, RuntimeMissing, Target, UsageError, replace, usable_threads
from drupe_decoding import Generation, Message, TextSession

pytest.importorskip("onnxruntime")

from drupe_onnxruntime.plain.runtime import OnnxRuntime


def opened(model: Model, target: Target, **options: Any) -> Any:
    return OnnxRuntime().open(model, target, **options)


def feeds(tokens: list[int]) -> dict[str, np.ndarray]:
    """A prompt with empty caches, for the graph of these tests."""
    ids = np.array([tokens], np.int64)
    caches = {
        f"past_key_values.{layer}.{part}": np.zeros((1, 2, 0, 16), np.float32)
        for layer in range(2)
        for part in ("key", "value")
    }
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), **caches}


def copy_of(model: Model, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model.location, tmp_path / "copy"))


def test_greedy_text_equals_that_of_transformers(checkpoint: Path, graph: Model, cpu: Target) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    prompt = tokenizer("def parse(", return_tensors="pt")
    tokens = model.generate(**prompt, max_new_tokens=24, do_sample=False, pad_token_id=0)
    expected = tokenizer.decode(tokens[0, prompt.input_ids.shape[1] :], skip_special_tokens=True)
    with opened(graph, cpu) as session:
        got = session.generate("def parse(", Generation(max_new_tokens=24))
    assert got == expected.rstrip("\ufffd") != ""


def test_rows_of_tokens_continue_as_transformers_continues_them(checkpoint: Path, graph: Model, cpu: Target) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    rows = np.random.default_rng(3).integers(2, VOCABULARY, (3, 7))
    tokens = model.generate(torch.tensor(rows), max_new_tokens=6, min_new_tokens=6, do_sample=False, pad_token_id=0)
    with opened(graph, cpu) as session:
        steps = [step.tolist() for step in session.continue_tokens(rows, 6)]
        assert session.vocabulary == VOCABULARY
    expected = tokens[:, 7:].T.tolist()
    assert steps == expected


def test_a_session_has_the_threads_that_it_is_opened_with(graph: Model, cpu: Target) -> None:
    for threads in (1, 3):
        with opened(graph, cpu, threads=threads) as session:
            assert session.threads == threads
            options = session.graphs["model"].get_session_options()
            assert options.intra_op_num_threads == threads
    with opened(graph, cpu) as session:
        assert session.threads == usable_threads()


def test_short_caches_of_sliding_windows_are_opened_as_whole_ones(graph: Model, tmp_path: Path, cpu: Target) -> None:
    onnx = pytest.importorskip("onnx")
    folder = copy_of(graph, tmp_path)
    changed = onnx.load(folder / "model.onnx", load_external_data=False)
    for node in changed.graph.node:
        if node.op_type == "GroupQueryAttention":
            [node.attribute.remove(each) for each in list(node.attribute) if each.name == "local_window_size"]
            node.attribute.append(onnx.helper.make_attribute("local_window_size", 8))
    onnx.save(changed, folder / "model.onnx")
    texts = []
    for _ in range(2):
        with opened(Model("onnx", folder), cpu) as session:
            texts.append(session.generate("def parse(self, text):", Generation(max_new_tokens=24)))
        for node in changed.graph.node:
            if node.op_type == "GroupQueryAttention":
                node.attribute.append(onnx.helper.make_attribute("sliding_window_cache", 1))
        onnx.save(changed, folder / "model.onnx")
    assert texts[0] == texts[1] != ""


def test_text_equals_that_of_onnxruntime_genai(
    kit: SimpleNamespace, graph: Model, checkpoint: Path, tmp_path: Path, cpu: Target
) -> None:
    og = pytest.importorskip("onnxruntime_genai")
    from drupe.api import Context
    from drupe_model_builder.build_decoder import BuildDecoder, BuildDecoderConfig
    from drupe_onnx import write_package
    from drupe_onnxruntime.genai.package_genai import PackageGenai, PackageGenaiConfig

    context = Context(cpu, tmp_path, threads=1)
    built = BuildDecoder().run(Model("hf", checkpoint), BuildDecoderConfig(), context)
    write_package(PackageGenai().run(built, PackageGenaiConfig(), context).payload, tmp_path, context)
    model = og.Model(str(tmp_path))
    parameters = og.GeneratorParams(model)
    parameters.set_search_options(max_length=40)
    generator = og.Generator(model, parameters)
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(kit.tokenizer_file())
    prompt = tokenizer.encode("def parse(").ids
    generator.append_tokens(np.array(prompt, np.int32))
    while not generator.is_done():
        generator.generate_next_token()
    expected = tokenizer.decode(generator.get_sequence(0)[len(prompt) :].tolist())
    with opened(Model("onnx", tmp_path), cpu, max_length=40) as session:
        assert session.generate("def parse(") == expected.rstrip("\ufffd") != ""


def test_logits_of_the_last_token_or_of_all_give_the_same_text(
    kit: SimpleNamespace, checkpoint: Path, graph: Model, tmp_path: Path, cpu: Target
) -> None:
    whole = kit.make_graph(checkpoint, tmp_path / "graph", cpu, all_logits=True)
    with opened(graph, cpu) as last, opened(whole, cpu) as every:
        assert last.run(feeds([5, 6, 7]), ["logits"])["logits"].shape == (1, 1, VOCABULARY)
        assert every.run(feeds([5, 6, 7]), ["logits"])["logits"].shape == (1, 3, VOCABULARY)
        assert last.generate("def parse(") == every.generate("def parse(") != ""


def test_a_float16_graph_has_float16_caches(
    kit: SimpleNamespace, checkpoint: Path, graph: Model, tmp_path: Path, cpu: Target
) -> None:
    table = replace(cpu.capabilities, activations=("float16",))
    target = replace(cpu, capabilities=table)
    half = kit.make_graph(checkpoint, tmp_path / "graph", target, weights="float16")
    with opened(half, cpu) as session, opened(graph, cpu) as single:
        caches = {value.type for value in session.graphs["model"].get_inputs() if "past" in value.name}
        assert caches == {"tensor(float16)"}
        short = Generation(max_new_tokens=4)
        assert session.generate("def parse(", short) == single.generate("def parse(", short) != ""


def test_a_run_gives_all_outputs_or_the_named_ones(graph: Model, cpu: Target) -> None:
    with opened(graph, cpu) as session:
        every = session.run(feeds([5, 6]))
        assert set(every) == {"logits", *(f"present.{i}.{part}" for i in range(2) for part in ("key", "value"))}
        named = session.run(feeds([5, 6]), ["present.1.key"])
        assert list(named) == ["present.1.key"]
        np.testing.assert_array_equal(named["present.1.key"], every["present.1.key"])


@pytest.mark.parametrize(
    ("change", "outputs", "message"),
    [
        ({"input_idz": 0}, None, "did you mean input_ids"),
        ({"attention_mask": None}, None, "input 'attention_mask' is missing"),
        ({}, ["logit"], "did you mean logits"),
    ],
)
def test_the_error_for_a_wrong_name_suggests_the_right_one(
    graph: Model, cpu: Target, change: dict[str, Any], outputs: list[str] | None, message: str
) -> None:
    given = {name: value for name, value in {**feeds([5]), **change}.items() if value is not None}
    with opened(graph, cpu) as session, pytest.raises(UsageError, match=message):
        session.run(given, outputs)


def test_several_rows_with_several_tokens_after_a_past_are_refused_with_a_cure(graph: Model, cpu: Target) -> None:
    rows, new = np.array([[5, 6], [7, 8]]), np.array([[9, 10], [11, 12]])

    def given(tokens: np.ndarray[Any, Any], length: int, past: Mapping[str, Any]) -> dict[str, Any]:
        plain = feeds([5])
        caches = {name: past.get(name.replace("past_key_values", "present")) for name in plain if "past" in name}
        empty = {name: np.repeat(plain[name], 2, axis=0) for name in caches}
        mask = np.ones((2, length), np.int64)
        return {"input_ids": tokens, "attention_mask": mask, **(caches if past else empty)}

    with opened(graph, cpu) as session:
        first = session.run(given(rows, 2, {}))
        with pytest.raises(UsageError, match="2 rows have 2 new tokens each after a past of 2 tokens") as caught:
            session.run(given(new, 4, first))
        assert "one by one" in (caught.value.cure or "")
        third = session.run(given(new[:, :1], 3, first))
        fourth = session.run(given(new[:, 1:], 4, third))
        whole = session.run(given(np.concatenate([rows, new], axis=1), 4, {}))
        np.testing.assert_allclose(fourth["logits"][:, -1], whole["logits"][:, -1], atol=1e-4)


def test_a_run_that_fails_is_one_error_and_the_runtime_prints_nothing(
    graph: Model, cpu: Target, capfd: pytest.CaptureFixture[str]
) -> None:
    with opened(graph, cpu) as session, pytest.raises(CheckFailed, match="cannot run the model"):
        session.run(feeds([10**6]))
    assert capfd.readouterr() == ("", "")


def test_a_damaged_graph_is_one_error_and_the_runtime_prints_nothing(
    graph: Model, tmp_path: Path, cpu: Target, capfd: pytest.CaptureFixture[str]
) -> None:
    path = copy_of(graph, tmp_path) / "model.onnx"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckFailed, match="cannot open the model"):
        opened(Model("onnx", path), cpu)
    assert capfd.readouterr() == ("", "")


def test_a_model_can_be_opened_by_its_graph_file(graph: Model, tmp_path: Path, cpu: Target) -> None:
    folder = copy_of(graph, tmp_path)
    renamed = (folder / "model.onnx").rename(folder / "other.onnx")
    with opened(Model("onnx", renamed), cpu) as by_file, opened(Model("onnx", folder), cpu) as by_folder:
        assert by_file.generate("def") == by_folder.generate("def")


def test_end_tokens_and_context_length_come_from_the_graph_without_a_generation_config(
    graph: Model, tmp_path: Path, cpu: Target
) -> None:
    from drupe_onnxruntime.plain.model_settings import read_settings

    folder = copy_of(graph, tmp_path)
    (folder / "generation_config.json").unlink(missing_ok=True)
    assert read_settings(folder).ends == frozenset()
    with opened(Model("onnx", folder), cpu) as session:
        assert session.max_length == 256
        assert session._settings.ends == {1}


def test_an_answer_stops_at_any_end_token_and_does_not_contain_it(graph: Model, tmp_path: Path, cpu: Target) -> None:
    folder = copy_of(graph, tmp_path)
    with opened(graph, cpu) as session:
        whole = list(session.stream("def parse("))
        new = next(place for place in range(2, len(whole)) if whole[place] not in whole[:place])
        end = session.encode(whole[new])[-1]
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, end]}))
    with opened(Model("onnx", folder), cpu) as session:
        assert list(session.stream("def parse(")) == whole[:new]
        assert session.timing.new_tokens > new


def test_max_length_limits_prompt_and_answer_together(graph: Model, cpu: Target) -> None:
    with opened(graph, cpu, max_length=16) as session:
        session.generate("def parse(")
        assert session.timing.prompt_tokens + session.timing.new_tokens == 16


def test_the_error_for_a_prompt_without_room_for_an_answer_names_both_numbers(graph: Model, cpu: Target) -> None:
    with opened(graph, cpu, max_length=16) as session, pytest.raises(UsageError, match=r"takes 101 tokens.*for 16"):
        session.stream("~" * 100)


def test_a_sampled_text_is_repeated_only_with_the_same_seed(graph: Model, cpu: Target) -> None:
    def sample(seed: int) -> str:
        text: str = session.generate("def", Generation(max_new_tokens=16, temperature=1.0, seed=seed))
        return text

    with opened(graph, cpu) as session:
        assert sample(1) == sample(1) != sample(2)


def test_finite_logits_pass_the_check_and_others_fail_it(
    graph: Model, cpu: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    from drupe_onnxruntime.plain.decoder import Decoder

    with opened(graph, cpu) as session:
        assert session.generate("def", Generation(validate=True)) == session.generate("def")
        monkeypatch.setattr(Decoder, "step", lambda self, tokens: np.array([0.0, np.nan]))
        with pytest.raises(CheckFailed, match="not finite"):
            session.generate("def", Generation(validate=True))


def test_an_interrupted_answer_does_not_change_the_next_one(graph: Model, cpu: Target) -> None:
    with opened(graph, cpu) as session:
        whole = session.generate("def")
        stream = session.stream("def")
        next(stream)
        with pytest.raises(KeyboardInterrupt):
            stream.throw(KeyboardInterrupt)
        assert session.generate("def") == whole


def test_a_conversation_is_rendered_by_the_chat_template(graph: Model, cpu: Target) -> None:
    with opened(graph, cpu) as session:
        prompt = session.conversation([Message("system", "be\nbrief"), Message("user", 'say "é"')])
    assert prompt == '<|bos|><|system|>be\nbrief<|end|><|user|>say "é"<|end|><|assistant|>'


def test_a_model_without_a_tokenizer_runs_and_generating_text_is_an_error(
    graph: Model, tmp_path: Path, cpu: Target
) -> None:
    folder = copy_of(graph, tmp_path)
    (folder / "tokenizer.json").unlink()
    with opened(Model("onnx", folder), cpu) as session:
        assert session.run(feeds([5]), ["logits"])["logits"].shape == (1, 1, VOCABULARY)
        with pytest.raises(ModelError, match=r"no tokenizer\.json"):
            session.stream("def")


def test_the_error_for_a_provider_that_onnxruntime_lacks_names_the_available_ones(graph: Model, cpu: Target) -> None:
    with pytest.raises(RuntimeMissing, match=r"no MadeUpExecutionProvider.*CPUExecutionProvider"):
        opened(graph, replace(cpu, runtime_name="MadeUpExecutionProvider"))


def test_the_error_for_a_missing_provider_gives_its_install_command(graph: Model, cpu: Target) -> None:
    acme = replace(cpu, runtime_name="AcmeExecutionProvider", install="pip install onnxruntime-acme")
    with pytest.raises(RuntimeMissing, match="has no AcmeExecutionProvider") as caught:
        opened(graph, acme)
    assert caught.value.cure == "pip install onnxruntime-acme"


def renamed(graph: Model, folder: Path, past: str, present: str) -> Model:
    """A copy of a decoder whose caches have other names."""
    import onnx

    path = folder / "model.onnx"
    proto = onnx.load(path, load_external_data=False)
    names = {
        old.format(layer, part): new.format(layer, part)
        for old, new in (("past_key_values.{}.{}", past), ("present.{}.{}", present))
        for layer in range(2)
        for part in ("key", "value")
    }
    for value in (*proto.graph.input, *proto.graph.output):
        value.name = names.get(value.name, value.name)
    for node in proto.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    onnx.save(proto, path)
    return Model("onnx", folder)


def test_caches_with_other_names_are_fed_too(graph: Model, tmp_path: Path, cpu: Target) -> None:
    other = renamed(graph, copy_of(graph, tmp_path), "past_{1}_{0}", "present_{1}_{0}")
    with opened(graph, cpu) as session, opened(other, cpu) as same:
        assert same.generate("def parse(") == session.generate("def parse(") != ""


def test_the_error_for_a_decoder_with_unknown_caches_names_the_reason(
    graph: Model, tmp_path: Path, cpu: Target
) -> None:
    other = renamed(graph, copy_of(graph, tmp_path), "memory.{}.{}", "memory_out.{}.{}")
    with opened(other.but(task="text-generation"), cpu) as session, pytest.raises(ModelError, match="key-value cache"):
        session.generate("def")
    with opened(other, cpu) as session:
        assert not isinstance(session, TextSession)
