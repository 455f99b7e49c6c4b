"""Session options: the settings with which onnxruntime opens a package, and where the package keeps them.

They have the form of `session_options` in genai_config.json, also in packages that have no such file: these keep them
in a file of their own, which Drupe's sessions read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from drupe.api import ModelError, Record, field, replace, unknown

GENAI = "genai_config.json"
OWN = "session_options.json"
"""The file of a package without a genai_config.json."""
PROVIDER_OPTIONS = "provider_options"
SWITCHES = {"on": True, "off": False, "true": True, "false": False}


class SessionSetting(Record):
    """A setting of a session, with the values that are worth trying on a target.

    name: for a user. option: its key among the session options; one with a dot is an entry of onnxruntime's session
    configuration, whose values are text. provider: where it is an option of a provider, onnxruntime-genai's name for
    that ("cuda"); its values are text as well.
    values: to try. default: what holds where the option is not given, True or False for a switch; None where the
    package or the runtime decides.
    words: for a value, what stands in the file in place of it.
    ordered: whether values after one that is slower are slower still, so that they need not be tried.
    """

    name: str
    option: str
    values: Sequence[Any] = ()
    default: Any = None
    words: Mapping[Any, Any] = field(default_factory=dict)
    provider: str = ""
    ordered: bool = False

    def trying(self, *values: Any) -> SessionSetting:
        """This setting, with other values to try."""
        return replace(self, values=values)

    def valid(self, value: Any) -> Any:
        """The value that a user means: a switch may be "on" or "off". Raises UsageError for one that is none."""
        is_switch = isinstance(self.default, bool)
        meant = SWITCHES.get(str(value).casefold(), value) if is_switch else value
        known = list(self.words) or ([True, False] if is_switch else [])
        if known and not any(meant == each and type(meant) is type(each) for each in known):
            words = ["on", "off"] if is_switch else list(map(str, known))
            raise unknown(f"value of the session setting '{self.name}'", str(value), words)
        return meant

    def value_in(self, options: dict[str, Any]) -> Any:
        """The value that session options give to it."""
        held = self._place(options).get(self.option)
        if held is None:
            return self.default
        return next((value for value, word in self.words.items() if word == held), held)

    def put_into(self, options: dict[str, Any], value: Any) -> None:
        """Give it a value. The default is what holds without the option, so it is left out then."""
        if value == self.default:
            self._place(options).pop(self.option, None)
            return
        place = self._place(options)
        if self.provider and not _provider_entries(options, self.provider):
            options.setdefault(PROVIDER_OPTIONS, []).append({self.provider: place})
        stored = self.words.get(value, value)
        place[self.option] = str(stored) if self.provider or "." in self.option else stored

    def _place(self, options: dict[str, Any]) -> dict[str, Any]:
        """Where the option stands: among the session options, or those of the provider."""
        if not self.provider:
            return options
        return next(iter(_provider_entries(options, self.provider)), {})


def _provider_entries(options: dict[str, Any], provider: str) -> list[dict[str, Any]]:
    """The options of a provider, in whichever entries of the session options they stand."""
    entries = [pair for entry in options.get(PROVIDER_OPTIONS, []) for pair in entry.items()]
    return [held for name, held in entries if name.casefold() == provider.casefold() and isinstance(held, dict)]


THREADS = SessionSetting("threads", "intra_op_num_threads", ordered=True)
SPINNING = SessionSetting("spinning", "session.intra_op.allow_spinning", default=True, words={True: "1", False: "0"})
ARENA = SessionSetting("arena", "enable_cpu_mem_arena", default=True)
OPTIMIZATION = SessionSetting(
    "graph_optimization_level",
    "graph_optimization_level",
    default="all",
    words={
        "disabled": "ORT_DISABLE_ALL",
        "basic": "ORT_ENABLE_BASIC",
        "extended": "ORT_ENABLE_EXTENDED",
        "all": "ORT_ENABLE_ALL",
    },
)
INTER_OP_THREADS = SessionSetting("inter_op_threads", "inter_op_num_threads")
MEMORY_PATTERN = SessionSetting("memory_pattern", "enable_mem_pattern", default=True)
EXECUTION_MODE = SessionSetting(
    "execution_mode",
    "execution_mode",
    default="sequential",
    words={"sequential": "ORT_SEQUENTIAL", "parallel": "ORT_PARALLEL"},
)
COMMON = (THREADS, SPINNING, ARENA, OPTIMIZATION, INTER_OP_THREADS, MEMORY_PATTERN, EXECUTION_MODE)
"""Settings that sessions of every provider have."""


@runtime_checkable
class Tunable(Protocol):
    """An execution provider that says which settings of its sessions are worth trying on this machine.

    A provider with two of its own::

        class Acme(TableProvider):
            ...

            def session_settings(self):
                clock = SessionSetting("clock", "clock_mode", ("boost", "eco"), default="auto", provider="acme")
                return (THREADS.trying(4, 2), clock)
    """

    def session_settings(self) -> Sequence[SessionSetting]:
        """The settings, those that matter most first."""


def options_file(names: Mapping[str, Any]) -> str:
    """The name of the file that holds the session options of a package, given the names of its files."""
    return GENAI if GENAI in names else OWN


def session_options(folder: Path) -> dict[str, Any]:
    """The session options of the package in a folder; empty where it has none."""
    path = folder / (GENAI if (folder / GENAI).is_file() else OWN)
    return options_in(path.name, path.read_bytes()) if path.is_file() else {}


def options_in(name: str, content: bytes | None) -> dict[str, Any]:
    """The session options in the content of a package's file; None stands for a file that is not there."""
    document = _document(name, content)
    if name == OWN:
        return document
    options: dict[str, Any] = _decoder(name, document).get("session_options", {})
    return options


def with_options(name: str, content: bytes | None, options: dict[str, Any]) -> bytes | None:
    """The content of the file with these session options; None where they need no file."""
    if name == OWN:
        return _written(options) if options else None
    document = _document(name, content)
    _decoder(name, document)["session_options"] = options
    return _written(document)


def _decoder(name: str, document: dict[str, Any]) -> dict[str, Any]:
    model = document.get("model")
    decoder = model.get("decoder") if isinstance(model, dict) else None
    if not isinstance(decoder, dict):
        raise ModelError(f"{name} has no model.decoder, which holds the session options", where=name)
    return decoder


def _document(name: str, content: bytes | None) -> dict[str, Any]:
    try:
        document = json.loads(content or b"{}")
    except ValueError as error:
        raise ModelError(f"{name} is not JSON: {error}", where=name) from error
    if not isinstance(document, dict):
        raise ModelError(f"{name} is not a JSON object", where=name)
    return document


def _written(document: dict[str, Any]) -> bytes:
    return (json.dumps(document, indent=4) + "\n").encode("utf-8")
