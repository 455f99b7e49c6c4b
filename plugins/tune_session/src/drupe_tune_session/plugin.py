"""The entry module of drupe-tune-session: the pass `tune-session`, its claim, its finisher and the command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from drupe.api import Ref, hookimpl

if TYPE_CHECKING:
    from drupe.api import Claim, Model, Option, Request, Stage, Target

NAME = "tune-session"
SUMMARY = "tries settings of the session, and writes those that are fastest into the package"


@hookimpl
def drupe_passes() -> list[Ref]:
    return [Ref(NAME, "drupe_tune_session.tune_session:TuneSession", SUMMARY)]


@hookimpl
def drupe_finishers() -> list[Ref]:
    return [Ref(NAME, "drupe_tune_session.finishing:finish", "measures what the pass writes")]


@hookimpl
def drupe_commands() -> list[Ref]:
    return [
        Ref(NAME, "drupe_tune_session.command:tune_session", "Find the fastest settings of a package, and keep them.")
    ]


@hookimpl
def drupe_options() -> list[Option]:
    from drupe.api import Option

    text = "Measure for at most some 10 s which settings of the session are fastest on this machine."
    default = "for packages of 32 MB or more that are run here"
    return [Option("tune", text, bool, group="Running and printing", default=default, off="no_tune")]


@hookimpl
def drupe_claim(stage: Stage, model: Model, target: Target, request: Request) -> Claim | None:
    """The claim of the stage `tune`: an ONNX package that is run in any case is tuned, unless unwanted."""
    from drupe.api import Claim, Step

    if stage.name != "tune" or model.kind != "onnx":
        return None
    wanted = request.options.get("tune")
    asked = wanted or NAME in request.settings
    if wanted is False or not (asked or request.verify):
        return Claim(NAME, (), reads=("tune",))
    config: dict[str, Any] = {} if asked else {"when": "worthwhile"}
    if request.threads or any("threads" in keys for name, keys in request.settings.items() if name != NAME):
        config["keep"] = ["threads"]
    return Claim(NAME, (Step(NAME, config),), reads=("tune",))
