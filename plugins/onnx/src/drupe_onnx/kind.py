"""OnnxKind: the model kind `onnx`, graphs with lazy weights and the files beside them.

Each method imports what it needs: numpy and onnx_ir take half a second, and to describe a package takes neither.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from drupe.api import Model, ModelError, ModelKind
from drupe_onnx import describing
from drupe_onnx.outline import read_outline
from drupe_onnx.package import OnnxPackage

if TYPE_CHECKING:
    from drupe.api import Context, Estimate, Target


class OnnxKind(ModelKind):
    """Models whose payload is an OnnxPackage; its location is the folder it was read from, or an .onnx file.

    Facts: weights = float | quantized, logits = last | all, packaged = no | yes.
    """

    name: ClassVar[str] = "onnx"

    def load(self, model: Model) -> Model:
        if model.payload is not None:
            return model
        from drupe_onnx.loading import load_package

        package = load_package(model.location)
        outlines = [read_outline(path) for path in describing.graph_files(model.location)]
        return model.but(payload=package, facts={**describing.facts_of(model.location, outlines), **model.facts})

    def save(self, model: Model, folder: Path, context: Context) -> Mapping[str, str]:
        from drupe_onnx.writer import write_package

        return write_package(self._package(model), folder, context)

    def fork(self, model: Model) -> Model:
        return model.but(payload=self._package(model).clone())

    def fingerprint(self, model: Model, thorough: bool = True) -> str:
        from drupe_onnx.measuring import fingerprint_of

        return fingerprint_of(self._package(model), thorough)

    def size(self, model: Model) -> int | None:
        try:
            return describing.size_of(model.location)
        except (OSError, ModelError):
            return None

    def describe(self, model: Model) -> Mapping[str, Any]:
        if model.payload is not None:
            from drupe_onnx.measuring import outlines_of

            package = self._package(model)
            return describing.describe(outlines_of(package), package.files, model.location)
        graphs = describing.graph_files(model.location)
        outlines = {path.stem if model.location.is_dir() else "model": read_outline(path) for path in graphs}
        data = {path for graph in graphs for path in describing.data_files(graph, read_outline(graph))}
        beside = dict(describing.files_beside(model.location, data)) if model.location.is_dir() else {}
        return describing.describe(outlines, beside, model.location)

    def check(self, model: Model, target: Target) -> Sequence[str]:
        from drupe_onnx import checking

        components = self._package(model).components
        found = [problem for component in components.values() for problem in checking.problems(component, target)]
        return tuple(dict.fromkeys(found))

    def estimate(self, model: Model, context: Context) -> Estimate:
        from drupe_onnx import measuring

        return measuring.estimate(self._package(model), context)

    def store(self, model: Model, folder: Path, context: Context) -> None:
        from drupe_onnx.storing import store_package

        store_package(self._package(model), folder, context.scratch)

    def restore(self, model: Model) -> Model:
        from drupe_onnx.storing import restore_package

        return model.but(payload=restore_package(model.location))

    def _package(self, model: Model) -> OnnxPackage:
        package = self.load(model).payload
        assert isinstance(package, OnnxPackage)
        return package
