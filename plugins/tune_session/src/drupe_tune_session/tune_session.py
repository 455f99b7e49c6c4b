"""The pass `tune-session`: writes settings of the session into a package."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from drupe.api import Context, Form, Model, Pass, PassConfig
from drupe_tune_session.plugin import NAME, SUMMARY

Value = bool | int | float | str


class TuneSessionConfig(PassConfig):
    """The settings of `tune-session`. One that names a value is not measured: the package gets that value."""

    seconds: float = Field(10.0, ge=0, le=3600, description="about how long measuring may take; 0 measures nothing")
    when: Literal["always", "worthwhile"] = Field(
        "always", description="worthwhile: only packages of 32 MB or more, and only where they are run here in any case"
    )
    threads: int | None = Field(None, ge=1, le=256, description="threads of the session; by default measured")
    spinning: bool | None = Field(
        None, description="whether threads that wait keep their core busy; by default measured"
    )
    arena: bool | None = Field(None, description="whether memory is kept for the next run; by default measured")
    graph_optimization_level: Literal["disabled", "basic", "extended", "all"] | None = Field(
        None, description="what onnxruntime does to the graph when it opens it; by default measured"
    )
    values: dict[str, tuple[Value, ...]] | None = Field(
        None, description="values to try, by the name of the setting, in place of those that the provider declares"
    )
    keep: tuple[str, ...] | None = Field(None, description="settings that stay as they are")
    chosen: dict[str, Value] | None = Field(
        None, description="what measuring chose, in a package's record: with it, nothing is measured again"
    )
    replaced: dict[str, Value | None] | None = Field(
        None, description="what the package had in place of it; tuning it again begins there"
    )

    @property
    def fixed(self) -> dict[str, Value]:
        """The settings that have a value here."""
        named = {name: getattr(self, name) for name in FIXED}
        return {name: value for name, value in named.items() if value is not None}


FIXED = ("threads", "spinning", "arena", "graph_optimization_level")


class TuneSession(Pass):
    """Writes the session options that the configuration names.

    Which are fastest shows only when the package is written: the finisher of the same name measures that, and its
    choice becomes a part of the configuration.
    """

    name = NAME
    summary = SUMMARY
    revision = 1
    Config = TuneSessionConfig
    requires = Form("onnx")
    ensures = Form("onnx")
    whole = True

    def run(self, model: Model, config: TuneSessionConfig, context: Context) -> Model:
        from drupe.api import registry
        from drupe_onnx.session_options import options_file
        from drupe_tune_session.session_file import with_changes
        from drupe_tune_session.tunable_settings import known_settings, settings_to_try

        provider = registry().provider(context.target.provider)
        settings_to_try(provider, config)  # raises its error before the work
        changes = {**config.fixed, **(config.chosen or {})}
        if changes:
            files = model.payload.files
            name = options_file(files)
            content = with_changes(name, _content(files, name), changes, known_settings(provider))
            if content is None:
                files.pop(name, None)
            else:
                files[name] = content
        return model


def _content(files: Mapping[str, Any], name: str) -> bytes | None:
    held = files.get(name)
    return held if held is None or isinstance(held, bytes) else bytes(held.read_bytes())
