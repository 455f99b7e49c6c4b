"""Files of a checkpoint that go beside the graph: the tokenizer's, the generation defaults, the licence."""

from __future__ import annotations

from pathlib import Path

from drupe_checkpoints.tokenizer.settings import TOKENIZER
from drupe_files import unreadable

CARRIED = (
    TOKENIZER, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "merges.txt", "chat_template.jinja", "chat_template.json", "processor_config.json", "preprocessor_config.json",
    "generation_config.json",
)  # fmt: skip
CARRIED_PATTERNS = (
    "additional_chat_templates/*.jinja", "chat_templates/*.jinja", "LICENSE*", "LICENCE*", "NOTICE*",
)  # fmt: skip


def carried(folder: Path) -> dict[str, Path | bytes]:
    """The files that are taken as they are, by their names in the package. Raises ModelError for an unreadable one."""
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
