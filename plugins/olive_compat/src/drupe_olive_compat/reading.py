"""Reading: from a workflow file of Olive to one of Drupe, with an answer to each of its lines."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from drupe.api import Notice
from drupe_olive_compat.answers import Ledger, changed, kept, missing
from drupe_olive_compat.chain import Chain, request_of
from drupe_olive_compat.components import OliveFile, file_of, is_olives
from drupe_olive_compat.measuring import say_measuring
from drupe_olive_compat.passes import follow
from drupe_olive_compat.settings_table import answer_to
from drupe_olive_compat.sources import CHECKPOINT, source_of
from drupe_olive_compat.targets import provider_of


def read(document: Mapping[str, Any], model: str) -> tuple[dict[str, Any] | None, list[Notice]] | None:
    """The workflow that a file of Olive asks for, and what is done about each of its lines; None for other files.

    model: instead of the file's; "" for the file's own.
    """
    if not is_olives(document):
        return None
    ledger = Ledger()
    file = file_of(document, ledger)
    source = source_of(file.model, model, ledger)
    provider = provider_of(file, ledger)
    data = {str(each.options.get("name", each.place.rpartition(".")[2])): each.options for each in file.data_configs}
    chain = Chain(source, provider, ledger, data)
    for part in file.passes:
        follow(chain, part)
    _say_what_is_made(file, chain)
    precision, options, settings = request_of(chain)
    measure = say_measuring(file, chain.read, ledger)
    output = _output(file, ledger)
    for name, value in file.settings.items():
        ledger.say(name, answer_to(name, value))
    if ledger.lacks:
        return None, ledger.notices
    reference = {"reference": source.reference, "revision": source.revision} if source.revision else source.reference
    workflow: dict[str, Any] = {"model": reference, "target": {"provider": provider, "precision": precision}}
    workflow |= {"options": options} if options else {}
    workflow |= {"settings": settings} if settings else {}
    workflow |= {"measure": measure} if measure else {}
    return workflow | ({"output": output} if output else {}), ledger.notices


def _say_what_is_made(file: OliveFile, chain: Chain) -> None:
    """Refuse a file that makes no ONNX graph."""
    if not file.passes:
        cure = "drupe evaluate PACKAGE --against MODEL measures"
        chain.ledger.say("passes", missing("the file makes nothing: it only evaluates", cure))
    elif chain.source.kind == CHECKPOINT and not chain.exports:
        what = "no pass of the file makes an ONNX graph of the checkpoint, and Drupe writes no checkpoints"
        chain.ledger.say("passes", missing(what, "add a pass ModelBuilder"))


def _output(file: OliveFile, ledger: Ledger) -> str:
    """The output folder. Olive takes a name with a suffix for that of the model's file."""
    named = file.settings.pop("output_dir", None)
    if not named:
        what = "no output folder is named, and Drupe takes none for granted"
        ledger.say("output_dir", changed(what, "-o OUT"))
        return ""
    path = PurePosixPath(str(named))
    if path.suffix.casefold() == ".onnx":
        folder = str(path.with_suffix(""))
        ledger.say("output_dir", changed(f"a folder of its own, {folder}, with the graph model.onnx in it"))
        return folder
    ledger.say("output_dir", kept(f"the folder {named}"))
    return str(named)
