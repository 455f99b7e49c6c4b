"""Packages with several adapters beside one base: each gives what merging it gives, in both runtimes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import decoder_families
import numpy as np
import pytest
from adapters import make_adapter, merged_by_peft
from plain_decoders import decoder_feed
from tiny import make_checkpoint
from typer.testing import CliRunner

import drupe
from drupe.api import Context, Model, ModelError, Plan, UsageError, registry, resolve, target_of
from drupe_commands.program import app
from drupe_onnx.adapter_files import read_adapter

peft = pytest.importorskip("peft")
TOKENS = [3, 77, 130, 9, 9, 250, 41]
SOME = ["q_proj", "v_proj", "down_proj"]
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def lora(**settings: Any) -> Any:
    return peft.LoraConfig(**{"r": 4, "lora_alpha": 12, "target_modules": SOME, **settings})


def run(*typed: object) -> Any:
    return CliRunner().invoke(app, [str(each) for each in typed], obj={})


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model, two adapters of other ranks and modules, and a float32 package with both."""
    folder = tmp_path_factory.mktemp("switched")
    base = make_checkpoint(folder / "base", "qwen2")
    make_adapter(folder / "fr", base, lora(), seed=1)
    ranks = {"rank_pattern": {"k_proj": 2}, "alpha_pattern": {"v_proj": 3}, "use_rslora": True}
    make_adapter(folder / "de", base, lora(r=6, target_modules=ALL, **ranks), seed=2)
    adapters = [folder / "fr", f"german={folder / 'de'}"]
    drupe.optimize(base, folder / "out", adapters=adapters, provider="cpu", precision="fp32")
    return folder


def wanted_logits(base: Path, *adapters: Path) -> np.ndarray:
    """The logits of every token, of transformers and peft."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype="float32")
    model.load_state_dict({name: torch.tensor(each) for name, each in merged_by_peft(base, adapters).items()})
    with torch.no_grad():
        return np.asarray(model(torch.tensor([TOKENS])).logits[0, -1].numpy())


def test_benchmark_measures_a_package_with_and_without_adapters_in_one_table(home: Path) -> None:
    pytest.importorskip("onnxruntime_genai")
    short = ("--prompt-lengths", 8, "--new-tokens", 4, "--repeats", 2, "--json")
    done = run("benchmark", home / "out", "--adapter", "fr", "--adapter", "german", *short)
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert [each["adapter"] for each in told["packages"]] == [None, "fr", "german"]
    assert all(len(result["packages"]) == 3 for result in told["results"])
    unknown = run("benchmark", home / "out", "--adapter", "it", *short)
    assert unknown.exit_code == UsageError.exit_status and "it has fr, german" in unknown.output


def logits_in_onnxruntime(package: Path, adapter: str | None) -> np.ndarray:
    """The last token's logits as a program without Drupe gets them."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(package / "model.onnx"), settings)
    options = onnxruntime.RunOptions()
    if adapter is not None:
        held = onnxruntime.LoraAdapter()
        held.Load(str(package / "adapters" / f"{adapter}.onnx_adapter"))
        options.add_active_adapter(held)
    return np.asarray(session.run(["logits"], decoder_feed(session, TOKENS), options)[0][0, -1])


def tokens_in_genai(package: Path, adapter: str | None, file: Path | None = None) -> list[int]:
    """The likeliest tokens as a program without Drupe gets them."""
    import onnxruntime_genai as og

    model = og.Model(str(package))
    parameters = og.GeneratorParams(model)
    parameters.set_search_options(do_sample=False, max_length=len(TOKENS) + 12)
    generator, adapters = og.Generator(model, parameters), og.Adapters(model)
    if adapter is not None:
        adapters.load(str(file or package / "adapters" / f"{adapter}.onnx_adapter"), adapter)
        generator.set_active_adapter(adapters, adapter)
    generator.append_tokens(np.array(TOKENS, np.int32))
    while not generator.is_done():
        generator.generate_next_token()
    found = [int(each) for each in generator.get_sequence(0)[len(TOKENS) :]]
    del generator, adapters
    return found


@pytest.mark.parametrize(("name", "folder"), [(None, None), ("fr", "fr"), ("german", "de")])
def test_logits_in_onnxruntime_are_those_of_peft(name: str | None, folder: str | None, home: Path) -> None:
    wanted = wanted_logits(home / "base", *([home / folder] if folder else []))
    np.testing.assert_allclose(logits_in_onnxruntime(home / "out", name), wanted, rtol=1e-3, atol=1e-3)


def test_onnxruntime_genai_switches_as_if_each_were_merged(home: Path, tmp_path: Path) -> None:
    plain = tokens_in_genai(home / "out", None)
    for name, folder in (("fr", "fr"), ("german", "de")):
        merged = tmp_path / name
        drupe.optimize(home / "base", merged, adapter=[home / folder], provider="cpu", precision="fp32", verify=False)
        found = tokens_in_genai(home / "out", name)
        assert found == tokens_in_genai(merged, None)
        assert found != plain


@pytest.mark.parametrize("runtime", ["onnxruntime-genai", "onnxruntime"])
def test_a_session_switches_and_goes_back(runtime: str, home: Path) -> None:
    found = registry()
    model = resolve(str(home / "out"), {}, found)
    provider = found.provider("cpu")
    with found.runtimes.make(runtime).open(model, provider.target()) as session:
        assert session.adapters == ("fr", "german")
        texts = []
        for name in (None, "fr", "german", "fr", None):
            session.use_adapter(name)
            texts.append(session.generate("The quick brown fox", max_new_tokens=12))
        with pytest.raises(UsageError, match="no adapter 'spanish'; it has fr, german"):
            session.use_adapter("spanish")
    assert texts[0] == texts[4] and texts[1] == texts[3]
    assert len(set(texts)) == 3


def test_the_closing_check_runs_and_compares_the_base_and_each_adapter(home: Path) -> None:
    check = json.loads((home / "out" / "drupe.json").read_text())["check"]
    for adapter in ("", " with adapter fr", " with adapter german"):
        assert check["metrics"][f"kl_divergence{adapter}"] < 1e-6
        assert check["units"][f"kl_divergence{adapter}"] == "nats/token"
    values = {check["metrics"][f"perplexity{each}"] for each in ("", " with adapter fr", " with adapter german")}
    assert len(values) == 3


def test_an_adapter_that_computes_something_else_fails_the_check(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reference has the adapter merged, by other code than that which makes the package's files."""
    from drupe.api import CheckFailed
    from drupe_checkpoints.adapters.configuration import AdapterConfiguration
    from drupe_verification import trying_process

    scale = AdapterConfiguration.scale_of
    monkeypatch.setattr(AdapterConfiguration, "scale_of", lambda self, module: -3 * scale(self, module))
    adapters = [f"wrong={home / 'fr'}"]
    drupe.optimize(home / "base", tmp_path / "out", adapters=adapters, provider="cpu", precision="fp32", verify=False)
    monkeypatch.setattr(AdapterConfiguration, "scale_of", scale)
    source = resolve(str(home / "base"), {"adapters": adapters}, registry())
    orders = {
        "package": str(tmp_path / "out"), "task": "text-generation", "provider": "cpu", "runtime": "onnxruntime-genai",
        "source": {"location": str(source.location), **source.note()}, "evaluator": "quality",
        "config": {"max_kl": 0.01}, "run": "", "made_by": {"imports": {}, "trainings": []},
    }  # fmt: skip
    with pytest.raises(CheckFailed, match="with the adapter 'wrong', the KL divergence from the source is"):
        trying_process.tried(orders)


def test_a_quantized_base_is_shared_and_its_adapters_are_not_quantized(home: Path, tmp_path: Path) -> None:
    adapters = [home / "fr", f"german={home / 'de'}"]
    best = {"provider": "cpu", "quality": "best", "calibration_sequences": 4, "calibration_length": 32}
    made = drupe.optimize(home / "base", tmp_path / "out", adapters=adapters, **best)
    for adapter in ("", " with adapter fr", " with adapter german"):
        assert made.check.metrics[f"kl_divergence{adapter}"] < 0.2
    for name in ("fr", "german"):
        file = f"adapters/{name}.onnx_adapter"
        assert (tmp_path / "out" / file).read_bytes() == (home / "out" / file).read_bytes()
    drupe.optimize(home / "base", tmp_path / "plain", verify=False, **best)
    data = "model.onnx.data"
    assert (tmp_path / "out" / data).read_bytes() == (tmp_path / "plain" / data).read_bytes()


def test_a_plan_makes_the_same_package_again(home: Path, tmp_path: Path) -> None:
    record = json.loads((home / "out" / "drupe.json").read_text())
    named = record["plan"]["source"]["options"]["adapters"]
    assert [each.rpartition("=")[2] for each in named] == [str(home / "fr"), str(home / "de")]
    assert any(each["handling"] == "switched" and "rank 2 to 6" in each["what"] for each in record["notices"])
    drupe.run(Plan.model_validate(record["plan"]), tmp_path / "again")
    for name in ("model.onnx", "model.onnx.data", "adapters.json", "adapters/german.onnx_adapter"):
        assert (tmp_path / "again" / name).read_bytes() == (home / "out" / name).read_bytes()


def test_commands_take_an_adapter_by_its_name(home: Path) -> None:
    out = home / "out"
    told = run("inspect", out).output
    assert "adapter fr" in told and f"made of {home / 'de'}" in told
    prompt = ("The quick", "--max-new-tokens", 8)
    texts = [run("generate", out, *prompt, *more).stdout for more in ((), ("--adapter", "fr"))]
    assert texts[0] != texts[1]
    wrong = run("generate", out, "The quick", "--adapter", "fra")
    assert wrong.exit_code == UsageError.exit_status
    assert "has no adapter 'fra'; it has fr, german" in wrong.output
    for name, against in (("fr", home / "base"), ("german", home / "base")):
        told = run("evaluate", out, "--adapter", name, "--against", against, "--json").stdout
        assert json.loads(told)["kl_divergence"] < 1e-6
    assert json.loads(run("evaluate", out, "--against", home / "base", "--json").stdout)["kl_divergence"] < 1e-6
    assert "leave --keep or --adapter out" in run("evaluate", out, "--adapter", "fr", "--keep").output


def test_what_the_layers_of_a_package_with_adapters_cost_is_measured_of_the_base(home: Path) -> None:
    metrics = drupe.evaluate(home / "out", home / "base", evaluator="layers", tokens=40)
    assert len(metrics) > 2 and all(abs(each.value) < 1e-6 for each in metrics)


def test_an_adapter_that_is_gone_is_said_where_a_comparison_needs_it(home: Path, tmp_path: Path) -> None:
    fr = Path(shutil.copytree(home / "fr", tmp_path / "fr"))
    drupe.optimize(home / "base", tmp_path / "out", adapters=[fr], provider="cpu", precision="fp32", verify=False)
    shutil.rmtree(fr)
    told = run("evaluate", tmp_path / "out", "--adapter", "fr", "--against", home / "base")
    assert told.exit_code == 2 and f"{fr}, which is not there any more" in " ".join(told.output.split())


def test_a_checkpoint_is_kept_by_reference_with_the_adapters_beside_it(home: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(home / "base", tmp_path / "base"))
    model = resolve(str(base), {"adapters": [str(home / "fr")]}, registry())
    kind, kept, (_, folder) = registry().kinds.make("hf"), tmp_path / "kept", adapter_of(model)
    kept.mkdir()
    kind.store(model, kept, Context(target_of(registry().provider("cpu"), registry()), tmp_path / "scratch"))
    assert not any(kept.glob("*.safetensors"))
    found = kind.restore(Model.from_note(model.note(), kept))
    assert found.location == base and adapter_of(found)[1] == str(kept / "adapters/fr") != folder
    assert kind.fingerprint(found) == kind.fingerprint(model)
    moved = Path(shutil.move(base, tmp_path / "moved"))
    assert kind.restore(Model.from_note(model.note(), kept), (base, moved)).location == moved
    shutil.move(moved, base)
    (base / "config.json").write_text((base / "config.json").read_text() + " ")
    with pytest.raises(ModelError, match=r"config\.json.* has changed"):
        kind.restore(Model.from_note(model.note(), kept))


def adapter_of(model: Model) -> tuple[str, str]:
    """The name and folder of the one adapter beside a model."""
    ((name, folder),) = json.loads(next(iter(model.parts.values()))["switched adapters"])
    return name, folder


def test_a_converted_adapter_works_in_a_package_that_was_made_before(home: Path, tmp_path: Path) -> None:
    later = make_adapter(tmp_path / "later", home / "base", lora(r=3, target_modules=["o_proj", "up_proj"]), seed=3)
    by_module, for_package = tmp_path / "plain.onnx_adapter", tmp_path / "own.onnx_adapter"
    assert run("convert-adapters", "--adapter_path", later, "--output_path", by_module).exit_code == 0
    assert run("convert-adapters", later, "-o", for_package, "--package", home / "out").exit_code == 0
    assert by_module.read_bytes() == for_package.read_bytes()
    merged = tmp_path / "merged"
    drupe.optimize(home / "base", merged, adapter=[later], provider="cpu", precision="fp32", verify=False)
    assert tokens_in_genai(home / "out", "later", for_package) == tokens_in_genai(merged, None)
    told = [
        run("generate", *typed, "The quick", "--max-new-tokens", 8).stdout
        for typed in ((home / "out", "--adapter", for_package), (merged,))
    ]
    assert told[0] == told[1]
    again = run("convert-adapters", later, "-o", for_package)
    assert again.exit_code != 0 and "--force" in again.output


def test_a_converted_adapter_that_does_not_fit_is_refused_by_its_first_matrix(home: Path, tmp_path: Path) -> None:
    other = make_checkpoint(tmp_path / "other", "qwen2", hidden_size=128)
    adapter = make_adapter(tmp_path / "adapter", other, lora())
    refused = run("convert-adapters", adapter, "-o", tmp_path / "a", "--package", home / "out")
    assert (
        "it changes model.layers.0.mlp.down_proj as a matrix of [128, 96], and the model's is [64, 96]"
        in refused.output
    )
    assert run("convert-adapters", adapter, "-o", tmp_path / "a").exit_code == 0
    refused = run("generate", home / "out", "The quick", "--adapter", tmp_path / "a.onnx_adapter")
    assert "down_proj.lora_B.weight is float32 [4, 128], and the package takes float32 [rank, 64]" in refused.output
    few = tmp_path / "few"
    drupe.optimize(home / "base", few, adapters=[home / "fr"], provider="cpu", precision="fp32", verify=False)
    refused = run("convert-adapters", home / "de", "-o", tmp_path / "c", "--package", few)
    assert "has no place for what the adapter adds to model.layers.0.mlp.gate_proj" in refused.output
    halves = run("convert-adapters", home / "fr", "-o", tmp_path / "b", "--dtype", "float16")
    assert halves.exit_code == 0
    refused = run("generate", home / "out", "The quick", "--adapter", tmp_path / "b.onnx_adapter")
    assert "float16 [96, 4], and the package takes float32 [96, rank]" in refused.output


FAMILIES = ("phi3", "gpt2", "gpt_neox", "deepseek_v2, groups")


@pytest.mark.parametrize("family", FAMILIES)
def test_fused_interleaved_and_transposed_matrices_are_adapted_alike(family: str, tmp_path: Path) -> None:
    base, reference = decoder_families.make(family, tmp_path)
    adapter = make_adapter(tmp_path / "adapter", reference, lora(r=3, target_modules=_products(reference)))
    made = drupe.optimize(
        base, tmp_path / "out", adapters=[f"a={adapter}"], provider="cpu", precision="fp32", tokens=64
    )
    assert made.check.metrics["kl_divergence with adapter a"] < 1e-6
    assert abs(made.check.metrics["perplexity with adapter a"] - made.check.metrics["perplexity"]) > 0.1


def _products(reference: Path) -> list[str]:
    """The modules of a model that are plain products, without routers, experts and heads."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.pytorch_utils import Conv1D

    model = AutoModelForCausalLM.from_pretrained(reference)
    others = ("lm_head", "embed_out", "router", "experts")
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D) and not any(each in name for each in others)
    ]


def test_an_adapter_may_be_merged_and_others_switched_upon_it(home: Path, tmp_path: Path) -> None:
    made = drupe.optimize(
        home / "base",
        tmp_path / "out",
        adapter=[home / "fr"],
        adapters=[f"german={home / 'de'}"],
        provider="cpu",
        precision="fp32",
    )
    assert made.check.metrics["kl_divergence with adapter german"] < 1e-6
    wanted = wanted_logits(home / "base", home / "fr", home / "de")
    np.testing.assert_allclose(logits_in_onnxruntime(tmp_path / "out", "german"), wanted, rtol=1e-3, atol=1e-3)


WRONG: dict[str, tuple[Any, str]] = {
    "DoRA": (lambda: lora(use_dora=True), "cannot be switched at run time: it is of DoRA"),
    "LoHa": (lambda: peft.LoHaConfig(r=3, target_modules=SOME), "it is of LoHa"),
    "LoKr": (lambda: peft.LoKrConfig(r=3, target_modules=SOME), "it is of LoKr"),
    "whole modules": (lambda: lora(modules_to_save=["norm"]), "it replaces model.layers.0.input_layernorm.weight, "),
    "embedding": (lambda: lora(target_modules=["embed_tokens"]), "it changes the embedding model.embed_tokens"),
    "head": (lambda: lora(target_modules=["lm_head", "q_proj"]), "it replaces lm_head.weight of the base model"),
    "bias": (lambda: lora(lora_bias=True, target_modules=["q_proj"]), "it adds to the bias of model.layers.0"),
    "tokens": (lambda: lora(trainable_token_indices=[7, 2]), "it trains tokens of model.embed_tokens"),
}


@pytest.mark.parametrize("case", WRONG)
def test_an_adapter_that_cannot_be_switched_is_to_be_merged(case: str, tmp_path: Path) -> None:
    config, message = WRONG[case]
    base = make_checkpoint(tmp_path / "base", "qwen2", tie_word_embeddings=True)
    adapter = make_adapter(tmp_path / "adapter", base, config())
    with pytest.raises(ModelError, match=message) as caught:
        drupe.optimize(base, tmp_path / "out", adapters=[adapter], provider="cpu", verify=False)
    assert f"--adapter {adapter}" in str(caught.value.cure)
    assert not (tmp_path / "out").exists()
    drupe.optimize(base, tmp_path / "out", adapter=[adapter], provider="cpu", verify=False)  # the cure works


def test_an_adapter_for_another_base_names_the_first_tensor_that_does_not_fit(home: Path, tmp_path: Path) -> None:
    wide = make_checkpoint(tmp_path / "wide", "qwen2", hidden_size=128)
    deep = make_checkpoint(tmp_path / "deep", "qwen2", num_hidden_layers=3)
    for other, message in (
        (wide, r"it changes model.layers.0.mlp.down_proj as a matrix of \[128, 96\], and the model's is \[64, 96\]"),
        (deep, "it changes model.layers.2.mlp.down_proj.weight, .* which this one does not have"),
    ):
        adapter = make_adapter(tmp_path / f"for-{other.name}", other, lora())
        with pytest.raises(ModelError, match=message):
            drupe.optimize(home / "base", tmp_path / "out", adapters=[adapter], provider="cpu", verify=False)


def test_names_are_told_apart_before_anything_is_made(home: Path) -> None:
    found, base = registry(), str(home / "base")
    with pytest.raises(UsageError, match="gives the name fr to"):
        resolve(base, {"adapters": [home / "fr", f"fr={home / 'de'}"]}, found)
    with pytest.raises(UsageError, match="'a b' cannot be an adapter's name"):
        (home / "a b").symlink_to(home / "fr")
        resolve(base, {"adapters": [home / "a b"]}, found)
    with pytest.raises(UsageError, match="'a/b' cannot be an adapter's name"):
        resolve(base, {"adapters": [f"a/b={home / 'fr'}"]}, found)
    with pytest.raises(ModelError, match="there is no adapter"):
        resolve(base, {"adapters": ["x=nowhere"]}, found)
    with pytest.raises(UsageError, match="--adapters takes no weight") as weighed:
        resolve(base, {"adapters": [f"x={home / 'fr'}:0.5"]}, found)
    assert f"--adapters x={home / 'fr'};" in str(weighed.value.cure)
    (home / "a=b").mkdir()
    (home / "a=b" / "c=d").symlink_to(home / "fr")
    for typed in (f"x={home / 'a=b' / 'c=d'}", home / "a=b" / "x=c=d", f"{home}/a=b/x={home}/fr"):
        assert json.loads(resolve(base, {"adapters": [typed]}, found).facts["switched adapters"])[0][0] == "x"


def test_an_adapter_has_places_for_its_own_modules_alone(home: Path) -> None:
    held = read_adapter(home / "out" / "adapters" / "fr.onnx_adapter")
    modules = {name.rpartition(".lora_")[0].rpartition(".")[2] for name in held}
    assert modules == {*SOME}
    assert held["model.layers.0.self_attn.q_proj.lora_A.weight"].shape == (64, 4)


def test_lora_in_a_graph_becomes_an_adapter_beside_its_base(home: Path, tmp_path: Path) -> None:
    from drupe_onnx import Files
    from drupe_onnx.adapted_copy import write_adapted_copy

    whole, out = tmp_path / "whole", tmp_path / "out"
    whole.mkdir()
    write_adapted_copy(resolve(str(home / "out"), {}, registry()), "german", whole)
    assert run("extract-adapters", whole, "-o", out, "--adapter", "de").exit_code == 0
    with Files() as files:
        held = [
            {name: np.array(each.value(files)) for name, each in read_adapter(path).items()}
            for path in (out / "adapters" / "de.onnx_adapter", home / "out" / "adapters" / "german.onnx_adapter")
        ]
    assert held[0].keys() == held[1].keys()
    for name, value in held[0].items():
        np.testing.assert_array_equal(value, held[1][name])
    assert tokens_in_genai(out, None) == tokens_in_genai(home / "out", None)
    assert tokens_in_genai(out, "de") == tokens_in_genai(home / "out", "german") == tokens_in_genai(whole, None)
    refused = run("extract-adapters", home / "out", "-o", tmp_path / "again")
    assert "has adapters already" in refused.output
    drupe.optimize(home / "base", tmp_path / "plain", provider="cpu", precision="fp32", verify=False)
    refused = run("extract-adapters", tmp_path / "plain", "-o", tmp_path / "again")
    assert "no products with float matrices that are called lora_A and lora_B" in refused.output


def test_a_package_with_adapters_is_a_source_that_keeps_them(home: Path, tmp_path: Path) -> None:
    made = drupe.optimize(home / "out", tmp_path / "out", provider="cpu", precision="int8")
    for adapter in ("", " with adapter fr", " with adapter german"):
        assert made.check.metrics[f"kl_divergence{adapter}"] < 0.05
    assert tokens_in_genai(tmp_path / "out", "fr") != tokens_in_genai(tmp_path / "out", None)


def test_adapters_are_for_checkpoints_that_write_text(home: Path, tmp_path: Path) -> None:
    for option in ("adapter", "adapters"):
        with pytest.raises(UsageError, match=f"--{option} is for checkpoints, and this is a graph"):
            resolve(str(home / "out" / "model.onnx"), {option: [home / "fr"]}, registry())
    base = make_checkpoint(tmp_path / "base", "qwen2")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "architectures": ["Qwen2Model"]}))
    with pytest.raises(ModelError, match="adapters are switched in models that generate text"):
        drupe.optimize(base, tmp_path / "out", adapters=[home / "fr"], provider="cpu", verify=False)


@pytest.mark.parametrize("content", ["", "[]", '{"element": "float32"}', "../outside"])
def test_a_damaged_list_of_adapters_is_refused(content: str, home: Path, tmp_path: Path) -> None:
    from drupe_onnx.switching import ADAPTERS, adapters_in

    if content == "../outside":
        held = json.loads((home / "out" / ADAPTERS).read_text())
        content = json.dumps({**held, "adapters": {"fr": "../outside"}})
    (tmp_path / ADAPTERS).write_text(content)
    with pytest.raises(ModelError, match="cannot be read"):
        adapters_in(tmp_path)
