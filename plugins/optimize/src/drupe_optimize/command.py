"""`drupe optimize` and `drupe auto-opt`."""

from __future__ import annotations

import functools
import json
import shlex
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from drupe.api import UsageError

if TYPE_CHECKING:
    from drupe.api import Outcome, Preview

ALIKE = 1.05
"""Sizes whose ratio is below this are one size to a person."""
START_UP, DISK_RATE, WORK_RATE = 1.0, 1e9, 1e8
"""For guesses: seconds, bytes a second, and parameters a second on one thread."""
MODEL_HELP = "Checkpoint folder, hub id, or what else installed plugins know."


def optimize(
    context: typer.Context,
    model: Annotated[str | None, typer.Argument(help=MODEL_HELP)] = None,
    model_name_or_path: Annotated[
        str | None, typer.Option("-m", "--model-name-or-path", help="The same, as an option.")
    ] = None,
    output_path: Annotated[Path | None, typer.Option("-o", "--output-path", "--output", help="Folder to make.")] = None,
    precision: Annotated[str, typer.Option(help="int4, int8, fp16, bf16 or fp32.")] = "int4",
    provider: Annotated[
        str | None, typer.Option(help="Execution provider: cpu, CUDAExecutionProvider, ...", show_default="cpu")
    ] = None,
    device: Annotated[str | None, typer.Option(help="Instead of a provider: cpu, gpu or npu.")] = None,
    quality: Annotated[
        str | None,
        typer.Option(
            help="fast (round to nearest), balanced (error search, bits where they count) or best (calibrated).",
            show_default="balanced",
        ),
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="rtn, search or hqq, instead of what the quality takes.", show_default=False)
    ] = None,
    prepare: Annotated[
        list[str] | None,
        typer.Option(
            help="rotate, smooth, scale or weigh, to lose less by quantizing; may be given several times.",
            show_default=False,
        ),
    ] = None,
    block_size: Annotated[
        int | None, typer.Option(help="Weights that share a scale: 16 to 256.", show_default="chosen for each matrix")
    ] = None,
    symmetric: Annotated[
        bool | None,
        typer.Option("--symmetric/--asymmetric", help="Without or with zero points.", show_default="asymmetric"),
    ] = None,
    head_bits: Annotated[
        int | None, typer.Option(help="Bits of embedding and head: 2, 4 or 8.", show_default="as bytes allow")
    ] = None,
    target_size: Annotated[
        str | None,
        typer.Option(help="Bytes that the weights may take, such as 250MB.", show_default="1.05 times plain 4 bits"),
    ] = None,
    bits_per_weight: Annotated[float | None, typer.Option(help="The same, as bits for each weight.")] = None,
    all_logits: Annotated[
        bool | None, typer.Option("--all-logits", help="Logits for every token, not just the last.")
    ] = None,
    threads: Annotated[
        int, typer.Option(min=0, help="For converting, and for the package on this machine.", show_default="all")
    ] = 0,
    verify: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Run the finished package, and compare it with its source.")
    ] = True,
    evaluation_data: Annotated[
        str | None, typer.Option(help="Text to compare on.", show_default="a short one that drupe brings")
    ] = None,
    tokens: Annotated[int | None, typer.Option(help="Tokens of it to compare on.", show_default="256")] = None,
    max_kl: Annotated[
        float | None,
        typer.Option(
            help="Spend as few bytes as keep the KL divergence from the source below, and fail where it is beyond.",
            show_default="fails for broken models only",
        ),
    ] = None,
    calibration_data: Annotated[
        str | None, typer.Option(help="Text to calibrate with.", show_default="Python's own documentation")
    ] = None,
    calibration_sequences: Annotated[int | None, typer.Option(help="How many pieces of it.")] = None,
    calibration_length: Annotated[int | None, typer.Option(help="Tokens of each piece.")] = None,
    calibration_seed: Annotated[int | None, typer.Option(help="Which pieces.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the output folder.")] = False,
    plan: Annotated[bool, typer.Option("--plan", help="Only say what would run, and what it takes.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    log_level: Annotated[int, typer.Option(min=0, max=2, help="0 minimal, 1 detailed, 2 debug.")] = 0,
    revision: Annotated[str | None, typer.Option(help="Hub: branch, tag or commit.")] = None,
    token: Annotated[str | None, typer.Option(help="Hub: access token.", envvar="HF_TOKEN")] = None,
    cache_dir: Annotated[Path | None, typer.Option(help="Hub: where downloads are kept.")] = None,
    use_ort_genai: Annotated[
        bool, typer.Option("--use-ort-genai", help="Accepted for Olive's users; packages always run there.")
    ] = False,
    trust_remote_code: Annotated[bool, typer.Option("--trust-remote-code", hidden=True)] = False,
) -> None:
    """Make a small, fast package of a model, and run it once to see that it works."""
    from drupe import api

    context.find_root().obj = {"debug": log_level == 2}
    if trust_remote_code:
        raise UsageError(
            "drupe never runs code from a checkpoint, and does not need to", cure="leave --trust-remote-code out"
        )
    options = {"quality": quality, "method": method, "prepare": prepare or None, "block_size": block_size,
               "symmetric": symmetric, "head_bits": head_bits, "all_logits": all_logits,
               "evaluation_data": evaluation_data, "tokens": tokens, "max_kl": max_kl, "target_size": target_size,
               "bits_per_weight": bits_per_weight, "calibration_data": calibration_data,
               "calibration_sequences": calibration_sequences, "calibration_length": calibration_length,
               "calibration_seed": calibration_seed}  # fmt: skip
    found_by = {"revision": revision, "token": token, "cache_dir": cache_dir}
    request = api.Request(
        reference=_one_model(model, model_name_or_path),
        output=_output(output_path, plan),
        provider=_provider(provider, device),
        precision=precision,
        options={name: value for name, value in options.items() if value is not None},
        model_options={name: value for name, value in found_by.items() if value is not None},
        threads=threads,
        verify=verify,
        force=force,
    )
    if plan:
        _show_preview(api.preview(request), _free_bytes(request.output), as_json)
        return
    if log_level:
        api.registry().manager.register(api.Narrator(log_level), name="terminal")
    _show_outcome(api.optimize(request, api.progress()), max_kl, as_json)


@functools.wraps(optimize)
def auto_opt(*arguments: Any, **options: Any) -> None:
    optimize(*arguments, **options)


auto_opt.__doc__ = """The same as `drupe optimize`, under the name that Olive's users know.

    Options may be typed with underscores (--model_name_or_path) or with dashes. Make a small, fast package of a model,
    and run it once to see that it works.
    """


def _one_model(argument: str | None, option: str | None) -> str:
    if argument and option and argument != option:
        raise UsageError(f"two models are named: '{argument}' and '{option}'", cure="name one")
    if not (argument or option):
        raise UsageError("no model is named", cure="drupe optimize MODEL -o OUT")
    return argument or option or ""


def _output(given: Path | None, plan: bool) -> Path:
    if given is None and not plan:
        raise UsageError("no output folder is named", cure="-o OUT")
    return given or Path("package")


def _provider(name: str | None, device: str | None) -> str:
    """The provider's name: as given, or the only one for a kind of device; both have to agree."""
    from drupe.api import DEFAULT_PROVIDER, registry

    if device is None:
        return name or DEFAULT_PROVIDER
    kinds: dict[str, list[str]] = {}
    for claim in registry().sound_providers():
        kinds.setdefault(claim.resolve().device_kind, []).append(claim.ref.name)
    if device.lower() not in kinds:
        raise UsageError(f"no provider is for the device '{device}'", cure=f"--device {' or '.join(sorted(kinds))}")
    candidates = kinds[device.lower()]
    if name is not None:
        chosen = registry().provider(name).name
        if chosen not in candidates:
            raise UsageError(f"--provider {name} is not for --device {device}", cure="give one of the two")
        return chosen
    if len(candidates) > 1:
        raise UsageError(
            f"several providers are for the device '{device}'", cure=f"--provider {' or '.join(candidates)}"
        )
    return candidates[0]


def _show_preview(preview: Preview, free: int | None, as_json: bool) -> None:
    from drupe.api import size, table

    if as_json:
        print(json.dumps({**_preview_facts(preview), "disk_free_bytes": free}, indent=1))
        return
    table([(step.runner.name, owner, _settings(step.config.model_dump())) for step, owner in preview.steps],
          ("pass", "brought by", "configuration"))  # fmt: skip
    print()
    if (estimate := preview.estimate) and estimate.weights:
        table([(each.role, each.scheme, each.blocks, size(each.bytes)) for each in estimate.weights],
              ("weights", "stored as", "blocks", "bytes"))  # fmt: skip
        print()
    if estimate:
        costly = _costly(preview)
        time = f"takes about {_seconds(preview):.0f} s with {preview.threads} threads"
        if costly:
            time = f"takes longer the more text there is: {', '.join(costly)}"
        print(f"reads {size(estimate.read_bytes)}, writes {size(estimate.output_bytes)}, "
              f"holds about {size(estimate.weights_held_bytes)} of weights in memory, {time}")  # fmt: skip
        if costly:
            wanted = any(getattr(step.config, "max_kl", None) for step, _ in preview.steps)
            print("how many bytes keep that divergence is known when it is measured" if wanted else
                  "what is measured on the way may give some matrices other schemes, in as many bytes")  # fmt: skip
    if estimate and free is not None and free < estimate.output_bytes:
        print(f"would not fit: the disk of the output has {size(free)} free")
    for problem in preview.problems:
        print(f"would not run on {preview.target.provider}: {problem}")


def _costly(preview: Preview) -> list[str]:
    """The passes that measure and compute on the way."""
    return [step.runner.name for step, _ in preview.steps if step.runner.costly]


def _seconds(preview: Preview) -> float:
    """About how long it takes: start-up, the disk's share, and the computation spread over the threads.

    What costly passes take is not in it.
    """
    if preview.estimate is None:
        return 0.0
    moved = (preview.estimate.read_bytes + preview.estimate.output_bytes) / DISK_RATE
    return START_UP + max(moved, preview.estimate.work / (WORK_RATE * preview.threads))


def _free_bytes(output: Path) -> int | None:
    """What is free on the disk that a folder is on, or would be; None where the system does not say."""
    folder = next((each for each in (output, *output.absolute().parents) if each.is_dir()), None)
    try:
        return shutil.disk_usage(folder).free if folder else None
    except OSError:
        return None


def _preview_facts(preview: Preview) -> dict[str, Any]:
    return {
        "source": str(preview.source.location),
        "provider": preview.target.provider,
        "runtime_version": preview.target.runtime_version,
        "recipe": preview.plan.recipe,
        "threads": preview.threads,
        "measures": _costly(preview),
        "seconds": None if _costly(preview) else round(_seconds(preview), 1),
        "estimate": preview.estimate and asdict(preview.estimate),
        "problems": preview.problems,
        "passes": [
            {"name": step.runner.name, "brought_by": owner, "config": step.config.model_dump(mode="json")}
            for step, owner in preview.steps
        ],
    }


def _settings(config: dict[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in config.items() if value is not None)


def _compared(made: int, source: int | None) -> str:
    if not source:
        return ""
    smaller = made <= source
    ratio = source / made if smaller else made / source
    if ratio < ALIKE:
        return ", as large as its source"
    return f", {ratio:.1f} times {'smaller' if smaller else 'larger'} than its source"


def _knows_the_text(outcome: Outcome) -> bool:
    """Whether the package was compared with its source on what it was calibrated with, which flatters it."""
    from drupe.api import RECORD

    compared_on = outcome.check.settings.get("evaluation_fingerprint")
    passes = json.loads((outcome.output / RECORD).read_text(encoding="utf-8"))["passes"]
    return bool(compared_on) and any(compared_on == each["config"].get("calibration_fingerprint") for each in passes)


def _show_outcome(outcome: Outcome, max_kl: float | None, as_json: bool) -> None:
    from drupe.api import size

    if as_json:
        print(json.dumps(asdict(outcome), indent=1, default=str))
        return
    peak = f", {size(outcome.peak_bytes)} of memory at most" if outcome.peak_bytes else ""
    print(f"{outcome.output}: {size(outcome.bytes)}{_compared(outcome.bytes, outcome.source_bytes)}")
    print(f"converted in {outcome.conversion_seconds:.1f} s{peak}")
    if outcome.check.not_run:
        print(f"not run here: {outcome.check.not_run}")
        if max_kl is not None:
            print(f"  --max-kl {max_kl:g} was aimed at, and is not measured: drupe evaluate OUT --against MODEL")
    else:
        print(f"checked in {outcome.check.seconds:.1f} s: {outcome.check.runtime} runs it")
        print(f"compared with its source: {outcome.check.comparison}")
        if _knows_the_text(outcome):
            print("  on the text that it was calibrated with: on another one it is farther from its source")
        print(f'  drupe generate {shlex.quote(str(outcome.output))} "def parse("')
