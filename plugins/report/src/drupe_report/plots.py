"""Plots of a report, as HTML without the library that draws them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

ACCENT, MUTED, BAD = "#2f6fde", "#9aa4b2", "#c2483d"
NEUTRAL = "#7a8699"
"""A grey that is read on white and on black."""


def bars(values: Mapping[str, float], unit: str) -> str:
    """Horizontal bars, the first on top."""
    names = list(values)[::-1]
    figure = go.Figure(
        go.Bar(
            x=[values[name] for name in names],
            y=names,
            orientation="h",
            marker_color=ACCENT,
            hovertemplate=f"%{{y}}: %{{x:,.4~s}} {unit}<extra></extra>",
        )
    )
    return _html(figure, unit, height=max(180, 60 + 22 * len(names)))


def curves(lines: Mapping[str, Mapping[int, float]], across: str, up: str) -> str:
    """Lines over steps; those without a value are left out."""
    figure = go.Figure()
    for (name, values), colour in zip(lines.items(), (ACCENT, BAD), strict=True):
        if values:
            figure.add_scatter(
                x=list(values),
                y=list(values.values()),
                mode="lines+markers",
                name=name,
                line_color=colour,
                hovertemplate=f"{across} %{{x}}: %{{y:.4f}}<extra>{name}</extra>",
            )
    figure.update_layout(yaxis_title=up)
    return _html(figure, across, height=360)


def frontier_plot(
    trials: Sequence[Mapping[str, Any]], objectives: Sequence[Mapping[str, Any]], parameters: Sequence[str]
) -> str:
    """Every trial that worked over the first two goals; the goals can be changed by menus."""
    shown = [trial for trial in trials if not trial["reason"]]
    metrics = [each["metric"] for each in objectives]
    units = {each["metric"]: each["unit"] for each in objectives}
    groups: tuple[tuple[str, str, str, Callable[[Mapping[str, Any]], bool]], ...] = (
        ("other trials", MUTED, "circle", lambda trial: not trial["on_frontier"]),
        ("frontier", ACCENT, "circle", lambda trial: trial["on_frontier"] and not trial["chosen"]),
        ("chosen", BAD, "star", lambda trial: trial["chosen"]),
    )
    first, second = metrics[0], metrics[min(1, len(metrics) - 1)]
    figure, members = go.Figure(), []
    for name, colour, symbol, belongs in groups:
        own = [trial for trial in shown if belongs(trial)]
        members.append(own)
        figure.add_scatter(
            x=[trial["metrics"][first] for trial in own],
            y=[trial["metrics"][second] for trial in own],
            mode="markers",
            name=name,
            marker={"color": colour, "size": 14 if symbol == "star" else 10, "symbol": symbol},
            text=[_told(trial, parameters) for trial in own],
            hovertemplate="%{text}<br>%{x:,.5~g}, %{y:,.5~g}<extra></extra>",
        )
    figure.update_layout(yaxis_title=_axis(second, units), updatemenus=_menus(metrics, members, units, first, second))
    return _html(figure, _axis(first, units), height=460)


def _menus(
    metrics: Sequence[str],
    members: Sequence[Sequence[Mapping[str, Any]]],
    units: Mapping[str, str],
    first: str,
    second: str,
) -> list[dict[str, Any]]:
    """A menu for each axis, where there is something to choose."""
    if len(metrics) < 3:
        return []

    def button(axis: str, metric: str) -> dict[str, Any]:
        values = [[trial["metrics"][metric] for trial in own] for own in members]
        return {
            "label": f"{axis}: {metric}",
            "method": "update",
            "args": [{axis: values}, {f"{axis}axis.title.text": _axis(metric, units)}],
        }

    menus = []
    for at, (axis, active) in enumerate((("x", first), ("y", second))):
        menus.append(
            {
                "buttons": [button(axis, metric) for metric in metrics],
                "active": metrics.index(active),
                "x": 0.5 * at, "xanchor": "left", "y": 1.18, "yanchor": "top",
                "bgcolor": "rgba(0,0,0,0)", "bordercolor": NEUTRAL, "font": {"color": NEUTRAL},
            }
        )  # fmt: skip
    return menus


def _told(trial: Mapping[str, Any], parameters: Sequence[str]) -> str:
    values = "<br>".join(f"{name.split('.')[-1]} {trial['values'][name]}" for name in parameters)
    return f"trial {trial['number']}<br>{values}"


def _axis(metric: str, units: Mapping[str, str]) -> str:
    return f"{metric} ({units[metric]})" if units.get(metric) and units[metric] != metric else metric


def _html(figure: go.Figure, axis: str, height: int) -> str:
    """The plot as a division. Its grounds are clear and its texts grey, so that it is read on light and dark pages."""
    line = {"gridcolor": "rgba(122,134,153,0.25)", "zeroline": False, "automargin": True}
    top = 60 if figure.layout.updatemenus else 10
    figure.update_layout(
        height=height,
        margin={"l": 10, "r": 10, "t": top, "b": 10},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": NEUTRAL, "size": 13},
        legend={"orientation": "h", "y": -0.2},
    )
    figure.update_xaxes(**line, title_text=axis)
    figure.update_yaxes(**line)
    made: str = figure.to_html(
        full_html=False,
        include_plotlyjs=False,
        config={"displaylogo": False, "responsive": True, "displayModeBar": False},
        default_width="100%",
    )
    return made
