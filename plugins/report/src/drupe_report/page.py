"""The page: facts, plots and the library that draws them, in one file."""

from __future__ import annotations

import datetime
import itertools
import json
from collections.abc import Mapping
from typing import Any

from drupe_console import figure, size
from drupe_report.measured import layers_of, others_of, samples_of

SHOWN = 12
"""How many matrices the plot names."""


def page_of(facts: Mapping[str, Any]) -> str:
    """The page about a package, a study or a training."""
    import jinja2
    from plotly.offline import get_plotlyjs

    from drupe_report import plots

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("drupe_report", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "size": size,
        "figure": figure,
        "json": _indented,
        "words": _words,
        "plain": _plain,
        "day": _day,
        "visible": _visible,
    }
    shown: dict[str, str] = {}
    more: dict[str, Any] = {}
    if facts["kind"] == "package":
        shown["layers"] = plots.bars(facts["bytes_by_layer"], "bytes")
        shown["matrices"] = plots.bars(_largest(facts["bytes_by_matrix"]), "bytes")
        took = {each["name"]: each["seconds"] for each in facts["passes"] if "seconds" in each}
        shown["passes"] = plots.bars(took, "s") if took else ""
        layers = layers_of(facts["measured"])
        if layers is not None:
            shown["divergences"] = plots.bars(layers.divergences, "nats/token")
            shown["errors"] = plots.bars(layers.errors, "of their size")
        more |= {"layers": layers, "samples": samples_of(facts["measured"]), "others": others_of(facts["measured"])}
    elif facts["kind"] == "training":
        shown["losses"] = plots.curves(
            {"loss": facts["losses"], "loss on rows held out": facts["evaluated"]}, "step", "loss"
        )
    else:
        shown["frontier"] = plots.frontier_plot(facts["trials"], facts["objectives"], facts["parameters"])
    template = environment.get_template(f"{facts['kind']}.html.jinja")
    return template.render(facts=facts, plots=shown, library=get_plotlyjs(), **more)


def _largest(sizes: Mapping[str, int]) -> dict[str, int]:
    """The largest entries, and all others as one."""
    named = dict(itertools.islice(sizes.items(), SHOWN))
    rest = sum(sizes.values()) - sum(named.values())
    return {**named, "others": rest} if rest else named


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _day(moment: str) -> str:
    """2026-11-28T08:44:30+00:00 as 2026-11-28 08:44 UTC."""
    return datetime.datetime.fromisoformat(moment).astimezone(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")


def _visible(text: str) -> str:
    """A token whose line ends can be seen."""
    return text.replace("\n", "\u23ce\n")


def _indented(value: Any) -> str:
    return json.dumps(value, indent=1)


def _words(name: str) -> str:
    return name.replace("_", " ")
