"""OnnxPackage: graphs whose weights are expressions, and the files that go beside them."""

from __future__ import annotations

import reprlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from drupe.api import ModelError
from drupe_onnx.decoder_description import DecoderDescription, decoder_of

if TYPE_CHECKING:
    from drupe_onnx import ir

GRAPH = "model.onnx"
"""The graph's file in a package with one graph."""


@dataclass
class OnnxPackage:
    """Graphs and the files beside them.

    components: a graph for each part of the model, by role; a model of one part calls it "model". files: the files
    beside the graphs, by name (with "/" for a file in a folder): a path to copy, or the content. sources: the graphs
    before their weights were quantized, by role, for passes that compare with them. They are never changed, and not
    written.
    """

    components: dict[str, ir.Model]
    files: dict[str, Path | bytes] = field(default_factory=dict)
    sources: dict[str, ir.Model] = field(default_factory=dict)

    def clone(self) -> OnnxPackage:
        """A copy whose graphs and files may be changed; the weights and the sources are shared."""
        components = {role: model.clone() for role, model in self.components.items()}
        return OnnxPackage(components, dict(self.files), dict(self.sources))

    def keep_sources(self) -> None:
        """Keep the graphs as they are now as the sources of what a pass makes of them, where none are kept yet."""
        self.sources = self.sources or {role: model.clone() for role, model in self.components.items()}

    def problem(self, roles: Collection[str]) -> str | None:
        """What is wrong with a package that a plugin has made, for a model with these parts; None where all is well."""
        from drupe_onnx import ir

        for name in ("components", "files"):
            if not isinstance(held := getattr(self, name), dict):
                return f"has an OnnxPackage with {name} = {reprlib.repr(held)}, which is not a dict"
        if set(self.components) != set(roles):
            return f"has the graphs {', '.join(map(str, self.components))} for the parts {', '.join(roles)}"
        for role, graph in self.components.items():
            if not isinstance(graph, ir.Model):
                return f"has {reprlib.repr(graph)} as the graph of the part '{role}', which is not an onnx_ir.Model"
        for name, content in self.files.items():
            if not isinstance(name, str) or PurePath(name).is_absolute() or ".." in PurePath(name).parts:
                return f"has a file called {name!r}, which is no name of a file in a package"
            if not isinstance(content, Path | bytes):
                return f"has {reprlib.repr(content)} as the file '{name}', which is neither a path nor bytes"
        return None

    @property
    def component(self) -> ir.Model:
        """The only component. Raises ModelError where there are several."""
        if len(self.components) != 1:
            raise ModelError(f"the package must have one graph, but has {_listed(self.components)}")
        return next(iter(self.components.values()))

    @property
    def graph_names(self) -> dict[str, str]:
        """The file of each component's graph, by role: model.onnx for a single component, otherwise ROLE.onnx.

        Raises ModelError for a role that cannot be a file name.
        """
        if len(self.components) == 1:
            return dict.fromkeys(self.components, GRAPH)
        for role in self.components:
            if not role or role.startswith(".") or PurePath(role).name != role or set(role) & set("\\/:"):
                raise ModelError(f"the model has a part called '{role}', which cannot be a file name")
        return {role: f"{role}.onnx" for role in self.components}

    @property
    def decoder(self) -> DecoderDescription | None:
        """The description of the decoder among the components; None where no component has one."""
        found = (decoder_of(component) for component in self.components.values())
        return next((description for description in found if description is not None), None)

    @property
    def context_length(self) -> int | None:
        """How many tokens a sequence may have; None where that is unknown."""
        return self.decoder.context_length if self.decoder else None


def _listed(roles: dict[str, ir.Model]) -> str:
    return f"{len(roles)}: {', '.join(roles)}" if roles else "none"


def graphs_of(model: ir.Model) -> Iterator[ir.Graph]:
    """The main graph and every graph inside it."""
    yield model.graph
    yield from model.graph.subgraphs()


def initializers_of(model: ir.Model) -> Iterator[ir.Value]:
    """Every initializer, those of inner graphs included, in the order of the graphs."""
    for graph in graphs_of(model):
        yield from graph.initializers.values()
