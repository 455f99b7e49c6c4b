"""Embedding models on the command line: optimizing, measuring, embedding, repeating, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny

import drupe
from drupe.api import CheckFailed, ModelError, UsageError

pytest.importorskip("onnxruntime")
POOLING = {"word_embedding_dimension": 64, "pooling_mode_lasttoken": True}


@pytest.fixture(scope="module")
def source(kit: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = kit.make_embedder(tmp_path_factory.mktemp("runs") / "source", "qwen3", POOLING, head_dim=32)
    return folder


@pytest.fixture(scope="module")
def package(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("package") / "out"
    drupe.optimize(str(source), out, quality="fast")
    return out


def program(*arguments: object, given: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "drupe", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, input=given, check=False)


def test_the_package_keeps_what_the_folder_says_and_its_record_has_the_task(source: Path, package: Path) -> None:
    record = json.loads((package / "drupe.json").read_text())
    assert record["task"] == "feature-extraction"
    assert [each["name"] for each in record["plan"]["passes"]][-2:] == ["package-embedding", "tune-session"]
    for name in ("modules.json", "1_Pooling/config.json", "config_sentence_transformers.json"):
        assert (package / name).read_bytes() == (source / name).read_bytes()
    assert not (package / "genai_config.json").exists()


def test_an_int4_package_gives_what_its_dequantized_weights_give(package: Path, kit: SimpleNamespace) -> None:
    with drupe.open(package) as session:
        got = session.embed(kit.TEXTS)
    assert kit.difference(got, accurate(package)(kit.TEXTS)) < 0.03  # activations are rounded to int8


def accurate(package: Path) -> Any:
    """Embeddings of the package with products of its dequantized weights in float32."""
    import onnx
    import onnxruntime as ort

    from drupe_tokenization import Tokenizer

    model = onnx.load(package / "model.onnx")
    levels = [each for node in model.graph.node for each in node.attribute if each.name == "accuracy_level"]
    assert len(levels) > 8
    for level in levels:
        level.i = 1  # float32: weights are dequantized, and activations are not rounded
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    tokenizer = Tokenizer(package)

    def embed(texts: list[str]) -> Any:
        rows = [np.array([tokenizer.encode_whole(text)], np.int64) for text in texts]
        feeds = [{"input_ids": row, "attention_mask": np.ones_like(row)} for row in rows]
        return np.concatenate([session.run(["sentence_embedding"], feed)[0] for feed in feeds])

    return embed


def test_embed_prints_a_list_of_numbers_for_each_text(package: Path, tmp_path: Path, kit: SimpleNamespace) -> None:
    done = program("embed", package, *kit.TEXTS)
    found = np.array(json.loads(done.stdout))
    assert found.shape == (len(kit.TEXTS), 64)
    assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-5)
    (tmp_path / "texts").write_text("\n".join(kit.TEXTS))
    assert np.array(json.loads(program("embed", package, "--file", tmp_path / "texts").stdout)) == pytest.approx(found)
    assert np.array(json.loads(program("embed", package, "-", given="\n".join(kit.TEXTS)).stdout)) == pytest.approx(
        found
    )
    asked = np.array(json.loads(program("embed", package, "x", "--prompt", "query").stdout))
    plain = np.array(json.loads(program("embed", package, kit.PROMPTS["query"] + "x").stdout))
    assert asked == pytest.approx(plain)


def test_embed_says_what_is_wrong(package: Path, tmp_path: Path) -> None:
    for arguments, says in [
        ((package,), "no text is given"),
        ((package, "x", "--prompt", "qurey"), "did you mean query?"),
        ((package, "--file", tmp_path / "none"), "cannot be read"),
        ((tmp_path / "none", "x"), "there is no package"),
    ]:
        done = program("embed", *arguments)
        assert says in done.stderr and "Traceback" not in done.stderr
        assert done.returncode == (
            2 if says in ("no text is given", "did you mean query?", "cannot be read") else done.returncode
        )


def test_a_plan_is_shown_and_repeated_to_the_byte(source: Path, package: Path, tmp_path: Path) -> None:
    shown = program("optimize", source, "-o", tmp_path / "x", "--plan")
    assert "package-embedding" in shown.stdout and not (tmp_path / "x").exists()
    drupe.run(drupe.plan(str(source), quality="fast"), tmp_path / "again")
    for name in ("model.onnx", "model.onnx.data"):
        assert (tmp_path / "again" / name).read_bytes() == (package / name).read_bytes()
    assert program("run", package / "drupe.json", "-o", tmp_path / "third").returncode == 0


def test_inspect_shows_the_task_and_the_pooling(source: Path) -> None:
    told = program("inspect", source).stdout
    for line in ("task                 feature-extraction", "pooling              lasttoken, normalized",
                 "prompts              query, document", "supported            yes"):  # fmt: skip
        assert line in told


def test_evaluate_measures_against_the_source_and_another_package(source: Path, package: Path, tmp_path: Path) -> None:
    found = {each.name: each for each in drupe.evaluate(package, str(source))}
    assert 0.8 < found["smallest_cosine"].value <= found["cosine_similarity"].value < 0.9999
    assert 0 < found["relative_error"].value < 0.6
    assert 0 < found["top1_agreement"].value <= 1
    itself = {each.name: each.value for each in drupe.evaluate(package, str(package))}
    assert itself["cosine_similarity"] == pytest.approx(1) and itself["top1_agreement"] == 1
    with pytest.raises(UsageError, match="against those of another model"):
        drupe.evaluate(package)
    with pytest.raises(CheckFailed, match="below the limit"):
        drupe.optimize(str(source), tmp_path / "out", quality="fast", min_cosine=0.99999)
    assert not (tmp_path / "out").exists()


def test_best_quality_is_closer_than_fast(source: Path, package: Path, tmp_path: Path) -> None:
    drupe.optimize(str(source), tmp_path / "best", quality="best", calibration_sequences=8, calibration_length=64)
    fast, best = (
        {each.name: each.value for each in drupe.evaluate(each, str(source))} for each in (package, tmp_path / "best")
    )
    assert best["relative_error"] < 0.6 * fast["relative_error"]


def test_a_head_in_the_files_takes_no_part(kit: SimpleNamespace, tmp_path: Path) -> None:
    """As transformers' AutoModel leaves it out, too. The check accounts for every other tensor."""
    folder = tiny.make_checkpoint(tmp_path / "with-head", "qwen3", head_dim=32, tie_word_embeddings=False)
    kit.write_modules(folder, POOLING)
    outcome = drupe.optimize(str(folder), tmp_path / "out", precision="fp32")
    assert outcome.check.metrics["cosine_similarity"] == pytest.approx(1)
    record = json.loads((tmp_path / "out" / "drupe.json").read_text())
    assert any("a head takes no part" in notice["what"] for notice in record["notices"])


def test_without_pooling_files_the_tokenizer_decides_and_a_notice_says_so(kit: SimpleNamespace, tmp_path: Path) -> None:
    folder = kit.make_embedder(tmp_path / "bare", "qwen3")
    drupe.optimize(str(folder), tmp_path / "last", precision="fp32")
    want = kit.expected(folder, kit.TEXTS, lambda hidden, mask: hidden[range(4), mask.sum(1) - 1], normalized=False)
    with drupe.open(tmp_path / "last") as session:
        assert kit.difference(session.embed(kit.TEXTS), want.pooled) < 1e-4
    drupe.optimize(str(folder), tmp_path / "mean", precision="fp32", pooling="mean")
    with drupe.open(tmp_path / "mean") as session:
        assert kit.difference(session.embed(kit.TEXTS), want.pooled) > 0.1

    plain = kit.make_embedder(tmp_path / "plain", "llama", appends=False)
    outcome = drupe.optimize(str(plain), tmp_path / "none", precision="fp32")
    assert "hidden states of 64 values" in outcome.check.text
    with drupe.open(tmp_path / "none") as session, pytest.raises(ModelError, match="how they are pooled is not known"):
        session.embed(["x"])
    for name, says in (("last", "puts <|end|> behind each text"), ("none", "no sentence_embedding")):
        record = json.loads((tmp_path / name / "drupe.json").read_text())
        assert any(says in notice["what"] for notice in record["notices"])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda folder, kit: kit.write_modules(folder, {**POOLING, "word_embedding_dimension": 32}),
            "states of 32 values",
        ),
        (lambda folder, kit: kit.write_modules(folder, {"pooling_mode": "lastoken"}), "unknown pooling mode"),
        (lambda folder, kit: kit.write_modules(folder, POOLING, ("Transformer", "Pooling", "LSTM")), "'LSTM'"),
        (lambda folder, kit: dense(folder, kit, out_features=48), r"asks for .* but 2_Dense/model\.safetensors holds"),
        (lambda folder, kit: dense(folder, kit, wrong_matrix=True), r"embeddings of 48 values, but those before"),
        (lambda folder, kit: [path.unlink() for path in folder.glob("tokenizer*")], "no tokenizer.json"),
        (lambda folder, kit: tiny.edit_config(folder, is_causal=None), "is_causal wants true or false"),
        (
            lambda folder, kit: tiny.edit_config(folder, architectures=["Qwen3ForSequenceClassification"]),
            "give embeddings",
        ),
    ],
    ids=["width", "mode", "module", "dense", "dense-width", "tokenizer", "direction", "class"],
)
def test_what_is_wrong_is_one_error_before_anything_is_written(
    change: Any, says: str, kit: SimpleNamespace, source: Path, tmp_path: Path
) -> None:
    import shutil

    folder = tmp_path / "changed"
    shutil.copytree(source, folder)
    change(folder, kit)
    with pytest.raises(ModelError, match=says) as raised:
        drupe.optimize(str(folder), tmp_path / "out", quality="fast")
    assert raised.value.cure and str(folder) in str(raised.value.where)
    assert not (tmp_path / "out").exists()


def dense(folder: Path, kit: SimpleNamespace, *, wrong_matrix: bool = False, **changed: Any) -> None:
    """Give the folder a module Dense whose files do not fit."""
    kit.write_modules(folder, POOLING, ("Transformer", "Pooling", "Dense"))
    place = folder / "2_Dense"
    if wrong_matrix:
        said = kit.write_dense(place, inputs=48, outputs=8, activation="torch.nn.Identity", bias=True)
        (place / "config.json").write_text(json.dumps(said))
    config = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps({**config, **changed}))


@pytest.fixture(scope="module")
def embedding_gemma(kit: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = {"head_dim": 16, "sliding_window": 6, "num_hidden_layers": 3, "use_bidirectional_attention": True}
    modules = ("Transformer", "Pooling", "Dense", "Dense", "Normalize")
    folder: Path = kit.make_embedder(
        tmp_path_factory.mktemp("gemma") / "source",
        "gemma3_text",
        {"pooling_mode": "mean"},
        modules=modules,
        **settings,
    )
    return folder


def test_layers_after_pooling_have_8_bits_in_a_quantized_package(
    embedding_gemma: Path, tmp_path: Path, kit: SimpleNamespace
) -> None:
    import onnx

    out = tmp_path / "out"
    outcome = drupe.optimize(str(embedding_gemma), out, quality="fast")
    assert outcome.check.metrics["cosine_similarity"] > 0.9
    graph = onnx.load(out / "model.onnx", load_external_data=False).graph
    found = {node.name: onnx.helper.get_node_attr_value(node, "bits") for node in graph.node
             if node.op_type == "MatMulNBits" and "Dense" in node.name}  # fmt: skip
    assert found == {"pooling/2_Dense/MatMul": 8, "pooling/3_Dense/MatMul": 8}
    assert not [each.name for each in graph.initializer if each.name.endswith("Dense.weight")]
    assert not list(out.rglob("*.safetensors")) and (out / "2_Dense" / "config.json").is_file()
    with drupe.open(out) as session:
        assert kit.difference(session.embed(kit.TEXTS), accurate(out)(kit.TEXTS)) < 0.03
    told = program("inspect", embedding_gemma).stdout
    assert "mean, dense to 96, dense to 40, normalized" in told and "in both directions" in told


def test_the_check_notices_a_layer_that_the_package_leaves_out(embedding_gemma: Path, tmp_path: Path) -> None:
    """The folder's tensors are listed without the passes' help."""
    from drupe_checkpoints.stored_tensors import stored_tensors

    stored = stored_tensors(embedding_gemma)
    assert stored is not None and {"2_Dense/linear.weight", "2_Dense/linear.bias", "3_Dense/linear.weight"} <= set(
        stored
    )


def test_half_precision_stores_layers_after_pooling_in_half(embedding_gemma: Path, tmp_path: Path) -> None:
    import onnx

    drupe.optimize(str(embedding_gemma), tmp_path / "out", provider="cuda", precision="fp16", verify=False)
    graph = onnx.load(tmp_path / "out" / "model.onnx", load_external_data=False).graph
    (stored,) = [each.data_type for each in graph.initializer if each.name == "pooling/2_Dense.weight"]
    assert stored == onnx.TensorProto.FLOAT16


def test_a_model_for_texts_and_images_becomes_a_package_of_its_text_part(kit: SimpleNamespace, tmp_path: Path) -> None:
    """EmbeddingGemma 2, without files of sentence-transformers and with them."""
    text = {**tiny.TINY, "head_dim": 16, "global_head_dim": 32, "sliding_window": 3, "embedding_dim": 80,
            "hidden_size_per_layer_input": 24}  # fmt: skip
    images = {"model_type": "gemma4_vision", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1,
              "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16}  # fmt: skip
    folder = kit.make_embedder(
        tmp_path / "source", "embedding_gemma2", text_config=text, vision_config=images, audio_config=None
    )
    drupe.optimize(str(folder), tmp_path / "last", precision="fp32")
    kit.write_modules(folder, {"pooling_mode": "mean"})
    outcome = drupe.optimize(str(folder), tmp_path / "mean", precision="fp32")
    (notice,) = outcome.notices
    assert "vision_tower" in notice.what and "the text part of EmbeddingGemma2Model" in notice.what
    pools = {
        "last": (lambda hidden, mask: hidden[range(len(hidden)), mask.sum(1) - 1], False),
        "mean": (lambda hidden, mask: (hidden * mask[..., None]).sum(1) / mask.sum(1)[:, None], True),
    }
    for name, (pool, normalized) in pools.items():
        want = kit.expected(folder, kit.TEXTS, pool, normalized=normalized)
        with drupe.open(tmp_path / name) as session:
            assert kit.difference(session.embed(kit.TEXTS), want.pooled) < 1e-4


@pytest.mark.parametrize(("option", "value"), [("max_kl", 0.1), ("all_logits", True)])
def test_options_of_logits_have_no_effect(option: str, value: Any, source: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no effect"):
        drupe.optimize(str(source), tmp_path / "out", **{option: value})


def test_targets_whose_attention_wants_a_past_get_an_empty_one(source: Path, tmp_path: Path) -> None:
    from drupe_onnx import OnnxKind

    for provider, has_past in (("dml", True), ("cuda", False)):
        out = tmp_path / provider
        drupe.optimize(str(source), out, provider=provider, precision="fp16", verify=False)
        graph = OnnxKind().load(drupe.api.resolve(str(out), {}, drupe.api.registry())).payload.component.graph
        attention = next(node for node in graph if node.op_type == "GroupQueryAttention")
        assert (attention.inputs[3] is not None) == has_past
        assert [value.name for value in graph.inputs] == ["input_ids", "attention_mask"]
