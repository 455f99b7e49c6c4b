"""A model whose tokenizer.json is missing or broken: one error, whoever reads it."""

from __future__ import annotations

from pathlib import Path

import pytest

from drupe.api import ModelError
from drupe_text.tokens import TextTokenizer
from drupe_tokenization import Tokenizer


@pytest.mark.parametrize("reader", [TextTokenizer, Tokenizer])
def test_a_missing_tokenizer_has_one_cure_and_a_broken_one_has_one_error(reader: type, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"the model has no tokenizer\.json, so it cannot") as missing:
        reader(tmp_path)
    assert missing.value.where == str(tmp_path) and "copy tokenizer.json" in str(missing.value.cure)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ModelError, match=r"tokenizer\.json cannot be read") as broken:
        reader(tmp_path)
    assert broken.value.where == str(tmp_path / "tokenizer.json") and "save them with transformers" in str(
        broken.value.cure
    )
