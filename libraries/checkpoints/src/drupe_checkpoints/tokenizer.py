"""Files of a checkpoint that go beside the graph: the tokenizer's, the generation defaults, the licence."""

from __future__ import annotations

import importlib.util
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from drupe.api import ModelError
from drupe_onnx import unreadable

TOKENIZER = "tokenizer.json"
CARRIED = (
    TOKENIZER, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "merges.txt", "chat_template.jinja", "chat_template.json", "generation_config.json",
)  # fmt: skip
CARRIED_PATTERNS = ("additional_chat_templates/*.jinja", "LICENSE*", "LICENCE*", "NOTICE*")
SENTENCEPIECE = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model")

CONVERSION = (
    "import sys; from transformers import AutoTokenizer; "
    "AutoTokenizer.from_pretrained(sys.argv[1], trust_remote_code=False).backend_tokenizer.save(sys.argv[2])"
)


def package_files(folder: Path) -> Mapping[str, Path | bytes]:
    """The files to put beside the graph, by their names in the package. There is always a tokenizer.json.

    A tokenizer.model without a tokenizer.json is converted where transformers is installed. Raises ModelError where no
    tokenizer is found that the runtime can read, and for a file that cannot be read.
    """
    files: dict[str, Path | bytes] = {**_carried(folder)}
    if TOKENIZER not in files:
        files[TOKENIZER] = _converted(folder)
    return files


def refuse_missing_tokenizer(folder: Path) -> None:
    """Raise the ModelError of `package_files` for a missing tokenizer. A conversion is assumed to succeed."""
    if TOKENIZER not in _carried(folder):
        _conversion(folder)


def _carried(folder: Path) -> dict[str, Path]:
    found = [folder / name for name in CARRIED if (folder / name).exists()]
    for pattern in CARRIED_PATTERNS:
        found += [path for path in sorted(folder.glob(pattern)) if path.is_file()]
    return {path.relative_to(folder).as_posix(): _readable(path) for path in found}


def _readable(path: Path) -> Path:
    """The path of a file, after a check that it can be read: it is read much later."""
    try:
        path.open("rb").close()
    except OSError as error:
        raise unreadable(path, error) from error
    return path


@dataclass(frozen=True)
class Conversion:
    """Converts an older tokenizer. command: without the output path. what, cure: of the error if it fails."""

    command: list[str]
    what: str
    cure: str


def _conversion(folder: Path) -> Conversion:
    """The conversion of the folder's tokenizer. Raises ModelError where the tokenizer or transformers is missing."""
    source = next((name for name in SENTENCEPIECE if (folder / name).is_file()), None)
    if source is None:
        raise ModelError(
            f"there is no {TOKENIZER}", where=folder, cure="copy the tokenizer's files into the checkpoint's folder"
        )
    # -P: Python must not import modules from the working folder.
    command = [sys.executable, "-P", "-c", CONVERSION, str(folder)]
    by_hand = shlex.join(["python", *command[1:], str(folder / TOKENIZER)])
    cure = f"pip install transformers sentencepiece protobuf, then run: {by_hand}"
    what = f"the runtime needs {TOKENIZER}, and there is only {source}"
    if importlib.util.find_spec("transformers") is None:
        raise ModelError(what, where=folder, cure=cure)
    return Conversion(command, what, cure)


def _converted(folder: Path) -> bytes:
    """The tokenizer.json that transformers makes from an older tokenizer, in a separate process to save memory."""
    conversion = _conversion(folder)
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch) / TOKENIZER
        command = [*conversion.command, str(made)]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode or not made.is_file():
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            what = f"{conversion.what}, and transformers could not convert it: {reason}"
            raise ModelError(what, where=folder, cure=conversion.cure)
        return made.read_bytes()
