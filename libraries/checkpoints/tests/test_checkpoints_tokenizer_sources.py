"""Tokenizers in other files than tokenizer.json: vocab.json and merges.txt, lists of tiktoken, tekken.json."""

from __future__ import annotations

import base64
import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny import tokenizer_text
from tokenizers import Tokenizer

from drupe.api import ModelError
from drupe_checkpoints import open_checkpoint
from drupe_checkpoints.tokenizer import from_ranks
from drupe_checkpoints.tokenizer.from_ranks import from_tekken, from_tiktoken
from drupe_checkpoints.tokenizer.parts import LLAMA3_WORDS
from drupe_checkpoints.tokenizer.resolving import resolve
from drupe_checkpoints.tokenizer.settings import Settings
from drupe_tokenization import awkward_texts

TEXTS = awkward_texts()
PLAIN = [
    text
    for text in TEXTS
    if not any(mark in text for mark in ("<s>", "</s>", "<unk>", "<|", "[INST]", "[/INST]", "<pad>"))
]
PAIRS = ["t h", "th e", "Ġ t", "Ġ a", "i n", "1 2", "# #"]
END = "<|endoftext|>"
GPT2_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def letters() -> list[str]:
    seen = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(byte) for byte in seen] + [chr(256 + place) for place in range(256 - len(seen))]


def slow_files(folder: Path, config: dict[str, Any], model_type: str = "llama", merges: str | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    vocab = {text: place for place, text in enumerate([*letters(), *(pair.replace(" ", "") for pair in PAIRS), END])}
    (folder / "vocab.json").write_text(json.dumps(vocab))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(PAIRS) + "\n" if merges is None else merges)
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    return folder


def made(folder: Path) -> Tokenizer:
    content = resolve(folder, json.loads((folder / "config.json").read_text())).content
    assert isinstance(content, bytes)
    return Tokenizer.from_str(content.decode())


@pytest.mark.parametrize(
    ("model_type", "config", "added"),
    [
        ("llama", {"tokenizer_class": "GPT2Tokenizer"}, {}),
        ("llama", {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": True, "add_bos_token": True}, {}),
        ("qwen2", {"tokenizer_class": "Qwen2Tokenizer", "additional_special_tokens": ["<|im_start|>"]},
         {"<|im_start|>": 264, "<|im_end|>": 265}),
        ("qwen3", {"tokenizer_class": "Qwen2Tokenizer"}, {"<tool>": 264}),
        ("gpt_neox", {"tokenizer_class": "GPTNeoXTokenizer", "pad_token": END}, {}),
    ],
)  # fmt: skip
def test_vocabulary_and_merges_become_the_tokenizer_of_autotokenizer(
    tmp_path: Path, model_type: str, config: dict[str, Any], added: dict[str, int]
) -> None:
    from transformers import AutoTokenizer

    folder = slow_files(tmp_path / "m", config, model_type)
    if added:
        (folder / "added_tokens.json").write_text(json.dumps(added))
    theirs, ours = AutoTokenizer.from_pretrained(folder), made(folder)
    for text in [*TEXTS, "<|im_start|>user<|im_end|> <tool>x", f"a{END} b", "## 12"]:
        assert ours.encode(text).ids == theirs.encode(text), text


@pytest.mark.parametrize(
    ("merges", "reason"),
    [("t h e\n", "which is not a pair"), ("q u\n", "merges.txt merges 'q' and 'u'"), ("t  h\n", "which is not a pair")],
)
def test_files_that_do_not_fit_together_are_an_error(tmp_path: Path, merges: str, reason: str) -> None:
    with pytest.raises(ModelError, match=reason) as caught:
        made(slow_files(tmp_path / "m", {}, merges=merges))
    assert caught.value.where == str(tmp_path / "m" / "merges.txt") and caught.value.cure


def test_a_class_whose_steps_are_not_known_is_refused_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="class 'RobertaTokenizer' splits a text") as caught:
        made(slow_files(tmp_path / "m", {"tokenizer_class": "RobertaTokenizer"}))
    cure = str(caught.value.cure)
    assert str(tmp_path / "m" / "tokenizer.json") in cure and "AutoTokenizer.from_pretrained" in cure


def test_the_command_of_the_way_out_writes_a_tokenizer_json(tmp_path: Path) -> None:
    import shlex

    folder = slow_files(tmp_path / "m", {"tokenizer_class": "RobertaTokenizer"})
    with pytest.raises(ModelError) as caught:
        made(folder)
    command = shlex.split(str(caught.value.cure).partition(", then ")[2])
    subprocess.run([sys.executable, *command[1:]], check=True, capture_output=True)
    assert isinstance(resolve(folder, {"model_type": "llama"}).content, Path)


RANKS = {
    token: rank
    for rank, token in enumerate(
        [*(bytes([byte]) for byte in range(256)), b"th", b"  ", b" t", b"the", b"    ", b"\n\n", b" the", b"12", b"123"]
    )
}


def merged(text: bytes) -> list[int]:
    """tiktoken's way, step by step: a whole word, or else the pair of the lowest rank first."""
    if text in RANKS:
        return [RANKS[text]]
    parts = [bytes([byte]) for byte in text]
    while True:
        joined = [
            (RANKS[left + right], at)
            for at, (left, right) in enumerate(itertools.pairwise(parts))
            if left + right in RANKS
        ]
        if not joined:
            return [RANKS[part] for part in parts]
        at = min(joined)[1]
        parts[at : at + 2] = [parts[at] + parts[at + 1]]


def words(pattern: str, text: str) -> list[str]:
    """How a regular expression cuts a text, by the library `regex`."""
    import regex

    return [found for found in regex.findall(pattern, text) if found]


def ranks_file(path: Path) -> Path:
    lines = (f"{base64.b64encode(token).decode()} {rank}\n" for token, rank in RANKS.items())
    path.write_text("".join(lines))
    return path


def test_a_list_of_tiktoken_gives_its_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(from_ranks, "LLAMA3_RANKS", len(RANKS))
    ranks_file(tmp_path / "tokenizer.model")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    ours = made(tmp_path)
    first, eot = len(RANKS), len(RANKS) + 9
    for text in PLAIN:
        expected = [number for word in words(LLAMA3_WORDS, text) for number in merged(word.encode())]
        assert ours.encode(text).ids == [first, *expected], text
    assert ours.encode("<|eot_id|> the<|begin_of_text|>").ids == [first, eot, RANKS[b" the"], first]


def test_a_list_of_tiktoken_of_an_unknown_model_is_refused(tmp_path: Path) -> None:
    path = ranks_file(tmp_path / "x.tiktoken")
    with pytest.raises(ModelError, match="does not say how text is split") as caught:
        from_tiktoken(path, Settings(tmp_path), "the way out")
    assert caught.value.cure == "the way out"


def test_tekken_gives_the_tokens_of_its_ranks_behind_the_special_ones(tmp_path: Path) -> None:
    path = tmp_path / "tekken.json"
    config = {"pattern": GPT2_WORDS, "default_vocab_size": 20 + len(RANKS), "default_num_special_tokens": 20}
    listed = [{"rank": rank, "token_bytes": base64.b64encode(token).decode()} for token, rank in RANKS.items()]
    path.write_text(json.dumps({"config": config, "vocab": [*listed, {"rank": 999, "token_bytes": "YWI="}]}))
    ours = Tokenizer.from_str(json.dumps(from_tekken(path)))
    for text in PLAIN:
        expected = [20 + number for word in words(GPT2_WORDS, text) for number in merged(word.encode())]
        assert ours.encode(text).ids == expected, text
    assert ours.encode("[INST]the[/INST]").ids == [3, 20 + RANKS[b"the"], 4]
    path.write_text(json.dumps({"config": config}))
    with pytest.raises(ModelError, match="not a tokenizer of Mistral"):
        from_tekken(path)


def test_merges_are_not_left_out_at_random(tmp_path: Path) -> None:
    document = json.loads(tokenizer_text())
    document["model"]["dropout"] = 0.1
    (tmp_path / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
    resolved = resolve(tmp_path, {"model_type": "llama"})
    assert any("dropout 0.1" in notice.what for notice in resolved.notices)
    assert isinstance(resolved.content, bytes)
    assert json.loads(resolved.content)["model"]["dropout"] is None


def test_nothing_heavy_is_imported_for_a_tokenizer(tmp_path: Path) -> None:
    slow_files(tmp_path / "m", {})
    code = (
        "import sys; from pathlib import Path; from drupe_checkpoints.tokenizer.resolving import resolve; "
        f"resolve(Path({str(tmp_path / 'm')!r}), {{}}); "
        "print([name for name in ('transformers', 'tokenizers', 'sentencepiece', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_checkpoint_gives_files_and_notices(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(slow_files(tmp_path / "m", {"tokenizer_class": "GPT2Tokenizer"}))
    assert checkpoint.package_files()["tokenizer.json"] == checkpoint.tokenizer.content
    assert "it is made from vocab.json and merges.txt" in checkpoint.tokenizer.notices[0].what
