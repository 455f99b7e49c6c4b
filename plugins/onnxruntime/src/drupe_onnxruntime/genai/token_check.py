"""token_check: what a user should know of how onnxruntime-genai's own tokenizer reads a package's tokenizer.

It and `tokenizers` read the same texts, each in a process of its own, while the caller does something else. Sessions
of Drupe take tokens from `tokenizers` in any case; a script that uses onnxruntime-genai alone takes them from the
former.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import takewhile
from pathlib import Path

from drupe.api import Notice, counted
from drupe_onnxruntime.genai.reading import ReadingProcess
from drupe_onnxruntime.genai.tokenizer_files import CONFIG, VOCABULARY, read
from drupe_onnxruntime.genai.tokenizer_form.form import MODULE, OWN, TokenizerForm
from drupe_onnxruntime.wheels import GENAI, ONNXRUNTIME, absence
from drupe_tokenization import (
    Comparison,
    Difference,
    Reading,
    ReferenceProcess,
    TokenizerDocument,
    awkward_texts,
    object_in,
)

ABOUT = "tokenizer"
SERVED = "served by Drupe only"
AS_NUMBERS = (
    "drupe generate, chat and drupe.open() take the right tokens; in a script of onnxruntime-genai alone, encode with "
    'tokenizers.Tokenizer.from_file("OUT/tokenizer.json") and give the numbers to append_tokens()'
)
AS_TEXT = (
    "drupe generate, chat and drupe.open() give the right texts; in a script of onnxruntime-genai alone, decode with "
    'tokenizers.Tokenizer.from_file("OUT/tokenizer.json")'
)
LONGEST_SHOWN = 8
"""Pieces of an example that are shown."""
Found = Callable[[], tuple[Notice, ...]]
"""Waits for what a check finds."""
_known: dict[tuple[str, int], tuple[Notice, ...]] = {}


@contextmanager
def token_check(
    files: Mapping[str, Path | bytes], document: TokenizerDocument, rows: int, scratch: Path
) -> Iterator[Found]:
    """The check while it runs, with a function that waits for its notices; leaving the context ends it.

    files: those of the package, of which the chat template may still change. document: its tokenizer.json. rows: how
    many tokens the model's embedding has. scratch: a folder. The function raises ModelError where `tokenizers` cannot
    read tokenizer.json. What was found is kept while the process runs, because a plan is previewed before it is run.
    """
    held = {name: read(files[name]) for name in (VOCABULARY, MODULE, OWN) if name in files}
    if CONFIG in files:
        config = {key: value for key, value in object_in(files, CONFIG).items() if key != "chat_template"}
        held[CONFIG] = json.dumps(config).encode()
    digest = hashlib.sha256()
    for content in held.values():
        digest.update(hashlib.sha256(content).digest())
    key = (digest.hexdigest(), rows)
    if key in _known:
        yield lambda: _known[key]
        return
    with tempfile.TemporaryDirectory(dir=scratch, ignore_cleanup_errors=True) as made:
        folder = Path(made)
        for name, content in held.items():
            (folder / name).write_bytes(content)
        with _reading(folder, document, rows) as found:
            yield lambda: _known.setdefault(key, found())


@contextmanager
def _reading(folder: Path, document: TokenizerDocument, rows: int) -> Iterator[Found]:
    """The two processes that read the tokenizer in a folder, with what is found of it."""
    missing, texts = absence(GENAI, ONNXRUNTIME), awkward_texts(document.added_tokens)
    with ExitStack() as processes:
        runtime = None if missing else processes.enter_context(ReadingProcess(folder, texts))
        counted_rows = None if document.numbers_end_below(rows) else rows
        reference = processes.enter_context(ReferenceProcess(folder / VOCABULARY, texts, counted_rows))

        def found() -> tuple[Notice, ...]:
            if missing:
                comparison = reference.compared(None)
                return (_not_compared(*missing), *_without_rows(comparison, rows))
            assert runtime is not None
            answer = runtime.answer()
            if "error" in answer:
                error = answer["error"].replace(str(folder), "OUT").partition("\n")[0]
                return (_not_read(error), *_without_rows(reference.compared(None), rows))
            comparison = reference.compared(Reading(**answer))
            return (*_differences(comparison), *_without_rows(comparison, rows))

        yield found


def _not_compared(why: str, cure: str) -> Notice:
    return Notice(
        ABOUT, "not checked",
        f"the tokens of onnxruntime-genai's own tokenizer were not compared with those of tokenizers: {why}",
        cure,
    )  # fmt: skip


def _not_read(error: str) -> Notice:
    return Notice(ABOUT, SERVED, f"onnxruntime-genai's own tokenizer cannot read this one: {error}", AS_NUMBERS)


def _without_rows(comparison: Comparison, rows: int) -> tuple[Notice, ...]:
    if not comparison.beyond_count:
        return ()
    count, named = comparison.beyond_count, ", ".join(comparison.beyond)
    listed = f"{named}, ..." if count > len(comparison.beyond) else named
    many = f"{counted(count, 'token')} of the tokenizer {'has' if count == 1 else 'have'}"
    return (
        Notice(
            ABOUT, "no row", f"{many} no row in the model's embedding, which has {rows}: {listed}",
            "keep out of prompts what becomes such a token, or resize the checkpoint's embedding first "
            "(resize_token_embeddings of transformers)",
        ),
    )  # fmt: skip


def _differences(comparison: Comparison) -> tuple[Notice, ...]:
    own, texts = "onnxruntime-genai's own tokenizer", comparison.texts
    notices = []
    if example := comparison.first_encoded:
        what = (
            f"{own} makes other tokens of {comparison.encoded} of {counted(texts, 'text')}, such as "
            f"{_quoted(example.text)}"
        )
        notices.append(Notice(ABOUT, SERVED, f"{what}: {_both(example)}", AS_NUMBERS))
    if example := comparison.begun:
        what = f"with add_special_tokens {own} puts other tokens around a text"
        notices.append(Notice(ABOUT, SERVED, f"{what}: {_both(example)}", AS_NUMBERS))
    if example := comparison.first_decoded:
        what = f"{own} gives back other texts for the tokens of {comparison.decoded} of {texts} texts"
        notices.append(Notice(ABOUT, SERVED, f"{what}: {_both(example)}", AS_TEXT))
    return tuple(notices)


def _both(difference: Difference) -> str:
    """What differs, and from where on if it is a list: the pieces that are equal before it tell nothing."""
    right, found = difference.right, difference.found
    alike = 0
    if not isinstance(right, str) and max(len(right), len(found)) > LONGEST_SHOWN:
        alike = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(right, found, strict=False)))
    behind = f" behind {alike} equal tokens" if alike > 1 else " behind an equal token" if alike else ""
    return f"{_listed(found[alike:])} instead of {_listed(right[alike:])}{behind}"


def _listed(pieces: Sequence[str] | str) -> str:
    if isinstance(pieces, str):
        return _quoted(pieces)
    shown = " ".join(map(_quoted, pieces[:LONGEST_SHOWN])) + (" ..." if len(pieces) > LONGEST_SHOWN else "")
    return shown or "no token"


def _quoted(text: str) -> str:
    """A text on one line, with an escape for each character that does not show by itself."""
    return f"'{''.join(map(_shown, text))}'"


def _shown(character: str) -> str:
    if character.isprintable() and not unicodedata.combining(character):
        return character
    return character.encode("unicode_escape").decode()


def form_notices(form: TokenizerForm) -> tuple[Notice, ...]:
    """The notice of a tokenizer that is written anew for onnxruntime-genai."""
    if not form.changes:
        return ()
    file = MODULE if form.document is None else OWN
    what = f"onnxruntime-genai would misread it, and gets a form of its own in {file}: {', '.join(form.changes)}"
    return (Notice(ABOUT, "rewritten", what, form.cure),)
