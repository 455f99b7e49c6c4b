"""The files that belong to a graph: its tokenizer's and its configurations, beside it or one folder up.

Repositories for transformers.js keep their graphs in a folder `onnx`, and the other files one folder up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from drupe_files import object_of

GENAI = "genai_config.json"
CONFIG = "config.json"
GENERATION = "generation_config.json"
TOKENIZER = "tokenizer.json"
TOKENIZERS = (TOKENIZER, "tokenizer.model", "spiece.model", "sentencepiece.bpe.model")
NAMES = (
    *TOKENIZERS, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt",
    "merges.txt", "chat_template.jinja", "chat_template.json", CONFIG, GENERATION, GENAI, "preprocessor_config.json",
    "processor_config.json", "modules.json", "config_sentence_transformers.json", "sentence_bert_config.json",
)  # fmt: skip
"""The files that are used from the folder of a single graph file: such a folder may hold unrelated files."""
PATTERNS = ("LICENSE*", "LICENCE*", "NOTICE*", "additional_chat_templates/*.jinja", "chat_templates/*.jinja")
WEIGHTS = (
    "*.safetensors", "*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack", "*.gguf", "*.onnx", "*.onnx_data*",
    "*.onnx.data*", "*.tflite", "*.ot",
)  # fmt: skip
"""The files that are never used: weights in other formats, which may be as large as the model."""
SUBFOLDER = "onnx"


def folders_of(location: Path) -> list[Path]:
    """The folders with files that belong to a model, the nearest folder first."""
    folder = location if location.is_dir() else location.parent
    return [folder, folder.parent] if folder.name == SUBFOLDER else [folder]


def side_files(location: Path) -> dict[str, Path]:
    """The files that belong to a graph, by name."""
    found: dict[str, Path] = {}
    for folder in folders_of(location):
        for path in _known(folder):
            found.setdefault(path.relative_to(folder).as_posix(), path)
    return found


def _known(folder: Path) -> Iterator[Path]:
    yield from (path for name in NAMES if (path := folder / name).is_file())
    for pattern in PATTERNS:
        yield from (path for path in sorted(folder.glob(pattern)) if path.is_file())


def without_weights(files: Mapping[str, Path | bytes]) -> dict[str, Path | bytes]:
    """`files` without those that hold weights."""
    return {name: content for name, content in files.items() if not any(map(Path(name).match, WEIGHTS))}


def has_tokenizer(location: Path) -> bool:
    """Whether there is a tokenizer for a model."""
    return any((folder / name).is_file() for folder in folders_of(location) for name in TOKENIZERS)


def object_in(files: Mapping[str, Path | bytes], name: str) -> dict[str, Any]:
    """The object in one of the JSON files; {} where the file is missing. Raises ModelError for other content."""
    return object_of(files.get(name), name, "download it again")
