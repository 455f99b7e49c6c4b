"""The files of sentence-transformers in a folder: how the hidden states of a text's tokens become one embedding.

modules.json lists modules, each with a folder of its own: a Transformer, a Pooling, and possibly some Dense (see
`dense_modules`) and a Normalize. The keys of
Pooling's config.json have two forms: a flag for each mode (`pooling_mode_lasttoken`), and since sentence-transformers 6
one key `pooling_mode`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from drupe.api import ModelError, Record, field, replace, unknown
from drupe_checkpoints.dense_modules import Dense, dense_of, weights_file
from drupe_files import json_object, json_value, unreadable

MODULES, PROMPTS = "modules.json", "config_sentence_transformers.json"
TEXTS = "sentence_*_config.json"
"""The pattern of the file with the settings of the Transformer module: mostly sentence_bert_config.json."""
TRANSFORMER, POOLING, DENSE, NORMALIZE = "Transformer", "Pooling", "Dense", "Normalize"
MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
"""How hidden states are pooled, by sentence-transformers' names and in the order in which it joins several."""
FLAGS = {"pooling_mode_cls_token": "cls", "pooling_mode_max_tokens": "max", "pooling_mode_mean_tokens": "mean",
         "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
         "pooling_mode_weightedmean_tokens": "weightedmean", "pooling_mode_lasttoken": "lasttoken"}  # fmt: skip
AGAIN = "download the folder again, or save the model with sentence-transformers"


class SentenceModules(Record):
    """What the files say.

    modes: of MODES; several are joined, and none means that no module pools. width: the values of a token's hidden
    state; None where it is not said. dense: the layers after pooling, in order. normalized: whether embeddings have the
    length 1. max_length: the most tokens of a text; None where it is not said. prompts: texts to put before a text, by
    name; default_prompt: the name of the one that is put before a text where none is chosen.
    """

    modes: tuple[str, ...] = ()
    width: int | None = None
    dense: tuple[Dense, ...] = ()
    normalized: bool = False
    max_length: int | None = None
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str | None = None
    pooling_file: str = ""
    """The file that says how tokens are pooled, for an error."""


def pools(folder: Path) -> bool:
    """Whether the modules of the folder pool tokens: it holds a model that gives embeddings of texts."""
    path = folder / MODULES
    return path.is_file() and any(kind == POOLING for kind, _ in _listed(path))


def sentence_files(folder: Path) -> dict[str, Path]:
    """The files of sentence-transformers that say how embeddings are made, by their names in the folder."""
    if not (folder / MODULES).is_file():
        return {}
    paths = [folder / MODULES, folder / PROMPTS, *sorted(folder.glob(TEXTS))]
    for kind, config in _listed(folder / MODULES):
        if config != "config.json":
            paths.append(folder / config)
        if kind == DENSE:
            paths.append(folder / weights_file(config))
    return {path.relative_to(folder).as_posix(): path for path in paths if path.is_file()}


def module_weights(folder: Path) -> list[str]:
    """The names of the files of weights that modules behind the Transformer have."""
    if not (folder / MODULES).is_file():
        return []
    return [weights_file(config) for kind, config in _listed(folder / MODULES) if kind == DENSE]


def sentence_modules(files: Mapping[str, Path | bytes]) -> SentenceModules:
    """What sentence-transformers' files among `files` say; the defaults where there are none.

    Raises ModelError for a module that is not built, and for settings that contradict themselves.
    """
    if MODULES not in files:
        return SentenceModules()
    found = SentenceModules(max_length=_max_length(files), **_prompts(files))
    if not (listed := _listed(files[MODULES])):
        return found
    (first, _), *others = listed
    if first != TRANSFORMER:
        raise _not_built(first, "the first module is a Transformer in every model that is", files)
    for kind, config in others:
        if kind == POOLING and not found.modes:
            found = _pooled(found, files, config)
        elif kind == DENSE and found.modes and not found.normalized:
            said = _config_of(kind, files, config)
            found = replace(found, dense=(*found.dense, dense_of(said, config, _place(files[config], config))))
        elif kind == NORMALIZE and found.modes and not found.normalized:
            found = replace(found, normalized=True)
        else:
            raise _not_built(kind, "after the Transformer only a Pooling, then Dense, then a Normalize are", files)
    return found


def _not_built(kind: str, why: str, files: Mapping[str, Path | bytes]) -> ModelError:
    return ModelError(
        f"{MODULES} lists a module '{kind}', which is not built: {why}",
        where=_place(files[MODULES], MODULES),
        cure="use a model of embeddings without this module",
    )


def _config_of(kind: str, files: Mapping[str, Path | bytes], name: str) -> dict[str, Any]:
    """The content of a module's config.json. Raises ModelError where there is none."""
    if name not in files:
        what = f"{MODULES} lists a {kind}, but there is no {name}"
        raise ModelError(what, where=_place(files[MODULES], MODULES), cure=AGAIN)
    return _read(files[name], name)


def _pooled(found: SentenceModules, files: Mapping[str, Path | bytes], name: str) -> SentenceModules:
    """The modules with what the config.json of a Pooling says."""
    config, place = _config_of(POOLING, files, name), _place(files[name], name)
    modes = tuple(_modes(config, name, place))
    width = config.get("embedding_dimension", config.get("word_embedding_dimension"))
    if width is not None and (not isinstance(width, int) or isinstance(width, bool) or width < 1):
        raise ModelError(f"{name} gives no number of values of a hidden state: {width!r}", where=place, cure=AGAIN)
    spared = config.get("include_prompt") is False and any(found.prompts.values())
    if spared and set(modes) != {"lasttoken"}:
        raise ModelError(
            f"{name} says include_prompt = false: the tokens of a prompt take no part in the embedding, and a graph "
            "with the inputs input_ids and attention_mask cannot know them",
            where=place,
            cure=f'set "include_prompt": true, or take the prompts out of {PROMPTS}',
        )
    return replace(found, modes=modes, width=width, pooling_file=name)


def _modes(config: Mapping[str, Any], name: str, place: Path | str) -> Iterator[str]:
    """The modes that a Pooling's config.json turns on."""
    said = config.get("pooling_mode")
    if said is None:
        unheard = [key for key in config if key.startswith("pooling_mode_") and key not in FLAGS and config[key]]
        if unheard:
            raise _unknown_mode(unheard[0], list(FLAGS), name, place)
        flagged = [mode for key, mode in FLAGS.items() if config.get(key)]
        yield from flagged or ["mean"]
        return
    for mode in [said] if isinstance(said, str) else said if isinstance(said, list) and said else [repr(said)]:
        if mode not in MODES:
            raise _unknown_mode(str(mode), list(MODES), name, place)
        yield mode


def _unknown_mode(mode: str, known: list[str], name: str, place: Path | str) -> ModelError:
    what = f"{name} names an {unknown('pooling mode', mode, known).what}"
    return ModelError(what, where=place, cure=f"correct it to what the model's card says: {', '.join(known)}")


def _max_length(files: Mapping[str, Path | bytes]) -> int | None:
    """The most tokens of a text, as the Transformer module's settings say it."""
    for name in sorted(files):
        if PurePosixPath(name).match(TEXTS):
            config, place = _read(files[name], name), _place(files[name], name)
            if config.get("do_lower_case"):
                raise ModelError(
                    f"{name} says do_lower_case = true, which no tokenizer.json says",
                    where=place,
                    cure='set "do_lower_case": false, and give the package texts in lower case',
                )
            most = config.get("max_seq_length")
            if most is not None and (not isinstance(most, int) or isinstance(most, bool) or most < 1):
                raise ModelError(
                    f"{name} gives no number of tokens as max_seq_length: {most!r}", where=place, cure=AGAIN
                )
            return most
    return None


def _prompts(files: Mapping[str, Path | bytes]) -> dict[str, Any]:
    if PROMPTS not in files:
        return {}
    config, place = _read(files[PROMPTS], PROMPTS), _place(files[PROMPTS], PROMPTS)
    prompts, default = config.get("prompts") or {}, config.get("default_prompt_name")
    if not isinstance(prompts, dict) or not all(isinstance(text, str | None) for text in prompts.values()):
        raise ModelError(f"{PROMPTS} gives no texts as prompts: {prompts!r}", where=place, cure=AGAIN)
    if default is not None and default not in prompts:
        raise ModelError(
            f"{PROMPTS} names the default prompt {default!r}, but its prompts are {', '.join(prompts) or 'none'}",
            where=place,
            cure='correct "default_prompt_name", or set it to null',
        )
    return {"prompts": {name: text or "" for name, text in prompts.items()}, "default_prompt": default}


def _listed(content: Path | bytes) -> list[tuple[str, str]]:
    """Each module: the last word of its class, and the name of its config.json."""
    where = _place(content, MODULES)
    entries = json_value(_bytes(content), MODULES, where, AGAIN)
    if not isinstance(entries, list) or not all(isinstance(each, dict) for each in entries):
        raise ModelError(f"{MODULES} is not a list of modules", where=where, cure=AGAIN)
    found = []
    for each in entries:
        place = PurePosixPath(str(each.get("path") or ""))
        if place.is_absolute() or ".." in place.parts:
            raise ModelError(f"{MODULES} names a path outside the folder: {place}", where=where, cure=AGAIN)
        found.append((str(each.get("type")).rpartition(".")[2], (place / "config.json").as_posix()))
    return found


def _read(content: Path | bytes, name: str) -> dict[str, Any]:
    return json_object(_bytes(content), name, _place(content, name), AGAIN)


def _bytes(content: Path | bytes) -> bytes:
    try:
        return content if isinstance(content, bytes) else content.read_bytes()
    except OSError as error:
        raise unreadable(Path(_place(content, "")), error) from error


def _place(content: Path | bytes, name: str) -> Path | str:
    """Where to look for a file that is wrong: its path, or its name where only the content is known."""
    return content if isinstance(content, Path) else name
