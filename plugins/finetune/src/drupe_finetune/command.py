"""`drupe finetune`: train a checkpoint on a data set, and write an adapter or a whole checkpoint."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from drupe.api import Cancelled, OutputError, UsageError, counted
from drupe_finetune.options import given, with_settings
from drupe_finetune.settings import FinetuneConfig

if TYPE_CHECKING:
    from drupe.api import Context, Model
    from drupe_finetune.training import Trained

THROUGH = "drupe_finetune.through"

app = typer.Typer(rich_markup_mode=None, add_completion=False)


class Command(TyperCommand):
    """Takes --training.NAME and --peft.NAME out of the line before typer, which does not know these options."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        from drupe_finetune.arguments import without_arguments

        rest, ctx.meta[THROUGH] = without_arguments(args)
        found: list[str] = super().parse_args(ctx, rest)
        return found


def _option(flags: str, help: str, metavar: str | None = None) -> Any:
    return typer.Option(*flags.split(), help=help, metavar=metavar, show_default=False)


@app.command("finetune", cls=Command)
@with_settings
def finetune(
    context: typer.Context,
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="A checkpoint's folder or a hub id.", show_default=False)
    ] = None,
    named: Annotated[
        str | None, _option("-m --model --model-name-or-path", "The same, as Olive has it.", "<model>")
    ] = None,
    data: Annotated[
        str | None,
        _option(
            "-d --data --data-name --train-data",
            "JSON lines, JSON, CSV, parquet or text; a folder of such files or of datasets; or a hub id.",
            "<data>",
        ),
    ] = None,
    output_path: Annotated[Path | None, _option("-o --output-path --output", "Folder to make.", "<path>")] = None,
    merge: Annotated[bool, _option("--merge", "Write a whole checkpoint, with the adapter merged.")] = False,
    restart: Annotated[bool, _option("--restart", "Begin again, whatever checkpoints are there.")] = False,
    force: Annotated[bool, _option("--force", "Replace the output folder.")] = False,
    as_json: Annotated[bool, _option("--json", "Print what ran as JSON.")] = False,
    **settings: Any,
) -> None:
    """Train a checkpoint on a data set. An adapter in peft's format comes out; with --merge, a whole checkpoint.

    Any argument of transformers' TrainingArguments may be given, --training.weight_decay 0.01, and any of peft's
    configuration of the adapter, --peft.modules_to_save '["lm_head"]'. A stopped run goes on from its last checkpoint
    when the same command is given again.
    """
    from drupe_finetune.settings import refuse_missing

    reference = _one_model(model, named)
    if data is None:
        raise UsageError("no data is named", cure="--data FILE")
    if output_path is None:
        raise UsageError("no output is named", cure="-o OUT")
    config = _configured(data, {**given(settings), **context.meta[THROUGH]})
    refuse_missing()
    note = run(reference, config, output_path, merge=merge, restart=restart, force=force)
    if as_json:
        print(json.dumps(note, indent=1))


def _one_model(model: str | None, named: str | None) -> str:
    if model and named:
        raise UsageError(f"two models are named: {model} and {named}", cure="name one")
    found = model or named
    if found is None:
        raise UsageError("no model is named", cure="drupe finetune MODEL --data DATA -o OUT")
    return found


def _configured(data: str, typed: dict[str, Any]) -> FinetuneConfig:
    from drupe.api import configure

    flags = {name: f"--{name.replace('_', '-')}" for name in FinetuneConfig.model_fields}
    found: FinetuneConfig = configure("finetune", FinetuneConfig, {"data": data, **typed}, flags)
    return found


def run(
    reference: str,
    config: FinetuneConfig,
    output: Path,
    *,
    merge: bool = False,
    restart: bool = False,
    force: bool = False,
) -> dict[str, Any]:
    """Train, and publish the result as `output`, whole or not at all. Gives what ran."""
    from drupe.api import usable_threads
    from drupe_blockquant.torch_threads import torch_threads

    with torch_threads(usable_threads()):
        return _run(reference, config, output, merge=merge, restart=restart, force=force)


def _run(
    reference: str, config: FinetuneConfig, output: Path, *, merge: bool, restart: bool, force: bool
) -> dict[str, Any]:
    from drupe.api import registry, resolve
    from drupe_checkpoints import checkpoint_of
    from drupe_files import claimed, scratch
    from drupe_finetune.arguments import refuse_unknown
    from drupe_finetune.finetune import refuse_untrainable
    from drupe_finetune.mistakes import refuse_mistakes
    from drupe_finetune.settings import refuse_idle
    from drupe_finetune.writing import named_base

    output = output.expanduser().absolute()
    refuse_unknown(config)
    refuse_idle(config)
    if merge and config.method == "full":
        raise UsageError("--merge has no effect: --method full makes a whole checkpoint", cure="leave it out")
    source = resolve(reference, {}, registry())
    refuse_untrainable(checkpoint_of(source))
    refuse_mistakes(source.location, config)
    _refuse_to_replace(output, source, force)
    with claimed(output), scratch() as folder:
        trained, work = _trained(source, config, output, folder, restart)
        trained.source = str(source.location) if Path(reference).exists() else reference
        context = _context(folder)
        staged = output.with_name(f".{output.name}.drupe-staging-{os.getpid()}")
        try:
            _write(trained, source, reference, config, staged, merge, context, output)
            _publish(staged, output)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
        shutil.rmtree(work, ignore_errors=True)
    whole = merge or config.method == "full"
    _sum_up(trained, config, output, named_base(config, reference, output), whole=whole)
    return trained.record(config)


def _trained(source: Model, config: FinetuneConfig, output: Path, scratch: Path, restart: bool) -> tuple[Trained, Path]:
    """The trained model, and the folder with its checkpoints, which lies beside the output."""
    from drupe.api import registry
    from drupe_finetune.checkpoints import begin, last_complete
    from drupe_finetune.finetune import ready_to_train, tell
    from drupe_finetune.training import train

    work = output.with_name(f"{output.name}.checkpoints")
    if restart:
        shutil.rmtree(work, ignore_errors=True)
    context = _context(scratch)
    fingerprint = registry().kinds.make(source.kind).fingerprint(source, thorough=False)
    source = ready_to_train(source, scratch / "base", context)
    begin(work, {**config.model_dump(mode="json"), "model": fingerprint})
    try:
        return train(source.location, config, work, context, tell), work
    except (KeyboardInterrupt, Cancelled):
        last = last_complete(work)
        kept = f"; {last.name} is kept in {work}" if last else "; no checkpoint was due yet"
        if not last:
            shutil.rmtree(work, ignore_errors=True)
        raise Cancelled(
            f"stopped; nothing was published{kept}",
            cure="the same command goes on from it" if last else "--save-every with fewer steps",
        ) from None
    except BaseException:
        if not last_complete(work):
            shutil.rmtree(work, ignore_errors=True)
        raise


def _context(scratch: Path) -> Context:
    from drupe.api import Context, Target, usable_threads

    return Context(target=Target("CPUExecutionProvider"), scratch=scratch, threads=usable_threads())


def _write(
    trained: Trained,
    source: Model,
    reference: str,
    config: FinetuneConfig,
    staged: Path,
    merge: bool,
    context: Context,
    output: Path,
) -> None:
    from drupe_files import disk_errors
    from drupe_finetune.writing import BASE, merged, named_base, with_own_base, write_adapter, write_note, write_whole

    with disk_errors(staged):
        if config.method == "full":
            staged.mkdir(parents=True)
            write_whole(trained, source.location, staged, config)
        elif merge:
            adapter = context.scratch / "adapter"
            write_adapter(trained, reference, adapter, config)
            merged(with_own_base(trained, source, context.scratch / "own-base", config), adapter, staged, context)
            write_note(trained, staged, config)
        else:
            own = named_base(config, reference, output)
            write_adapter(trained, own, staged, config)
            with_own_base(trained, source, staged / BASE, config)


def _refuse_to_replace(output: Path, source: Model, force: bool) -> None:
    from drupe_finetune.writing import NOTE

    if output.resolve() in (source.location.resolve(), *source.location.resolve().parents):
        raise OutputError(
            "the output would replace the model that is trained", where=output, cure="choose another folder: -o OUT"
        )
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    if not (output / NOTE).is_file():
        what = (
            f"the output exists and was not made by drupe finetune (it has no {NOTE}), so --force does not replace it"
        )
        raise OutputError(what, where=output, cure="choose another output: -o OUT")
    if not force:
        raise OutputError("the output folder exists", where=output, cure="--force replaces it, -o names another")


def _publish(staged: Path, output: Path) -> None:
    """Rename the finished folder to its place; an old output is removed when the new one is there."""
    from drupe_files import disk_errors

    aside = output.with_name(f".{output.name}.drupe-old-{os.getpid()}")
    with disk_errors(output):
        if output.exists():
            output.rename(aside)
        staged.rename(output)
        shutil.rmtree(aside, ignore_errors=True)


def _sum_up(trained: Trained, config: FinetuneConfig, output: Path, reference: str, *, whole: bool) -> None:
    from drupe_finetune.finetune import tell

    first, last = next(iter(trained.losses.values()), None), next(reversed(trained.losses.values()), None)
    if first is not None and last is not None:
        tell(f"loss {first:.4f} at the beginning, {last:.4f} at the end, in {counted(trained.steps, 'step')}")
    if trained.rose:
        tell(f"the loss did not fall; --learning-rate {config.rate / 10:g} takes smaller steps")
    tell(f"wrote {output}")
    named = str(output) if whole else f"{reference} --adapter {output}"
    tell(f"next: drupe optimize {named} -o PACKAGE")
