"""Reading tokenizer.json with `tokenizers`, and the errors where that is not possible."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from drupe.api import ModelError, RuntimeMissing
from drupe_tokenization.document import AGAIN

if TYPE_CHECKING:
    import tokenizers

FILE = "tokenizer.json"


def read_tokenizer(path: Path, lost: str) -> tokenizers.Tokenizer:
    """The tokenizer of a file, or of a folder with tokenizer.json, without truncation and padding.

    lost: what the model cannot do without one ("read or write text"). Raises ModelError for a missing or a broken file,
    RuntimeMissing where `tokenizers` is not installed.
    """
    path = path / FILE if path.is_dir() else path
    if not path.is_file():
        raise no_tokenizer(lost, path.parent)
    try:
        import tokenizers
    except ImportError as error:
        raise RuntimeMissing(f"reading {FILE} needs tokenizers: {error}", cure="pip install tokenizers") from error
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises plain Exceptions
        raise ModelError(f"{FILE} cannot be read: {error}", where=path, cure=AGAIN) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def no_tokenizer(lost: str, folder: Path | None = None) -> ModelError:
    """The error for a model without a tokenizer.json. lost: what it cannot do without one."""
    return ModelError(
        f"the model has no {FILE}, so it cannot {lost}",
        where=folder,
        cure=f"copy {FILE} from the checkpoint that the model was made from",
    )
