"""OnnxKind: the model kind `onnx`, graphs with lazy weights and the files beside them.

Each method imports what it needs: numpy and onnx_ir take half a second to load, and describing a package needs neither.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from drupe.api import ONLY_PART, Model, ModelError, ModelKind
from drupe_onnx.external_data import data_files
from drupe_onnx.facts import part_facts
from drupe_onnx.outline import read_outline
from drupe_onnx.package import OnnxPackage
from drupe_onnx.package_folder import package_files, size_of
from drupe_onnx.switching import declared

if TYPE_CHECKING:
    from drupe.api import Context, Estimate, Target


class OnnxKind(ModelKind):
    """Models whose payload is an OnnxPackage; its location is the folder it was read from, or an .onnx file.

    Each component of the package is a part, under the same role. Facts: see `facts_of`.
    """

    name: ClassVar[str] = "onnx"
    runnable: ClassVar[bool] = True

    def load(self, model: Model) -> Model:
        if model.payload is not None:
            return model
        from drupe_onnx.loading import load_package

        files = package_files(model.location)
        found = part_facts(files)
        parts = {role: {**facts, **model.parts.get(role, {})} for role, facts in found.items()}
        return model.but(payload=load_package(files), parts=parts)

    def save(self, model: Model, folder: Path, context: Context) -> Mapping[str, str]:
        from drupe_onnx.writer import write_package

        return write_package(declared(package_of(model)), folder, context)

    def payload_problem(self, model: Model) -> str | None:
        if model.payload is None:
            return None
        if not isinstance(model.payload, OnnxPackage):
            return f"has the payload {reprlib.repr(model.payload)}, which is not an OnnxPackage"
        return model.payload.problem(model.parts)

    def fork(self, model: Model) -> Model:
        return model.but(payload=package_of(model).clone())

    def split(self, model: Model) -> Mapping[str, Model]:
        model = self.load(model)
        package = package_of(model)
        if len(package.components) == 1:
            return {ONLY_PART: model}
        return {
            role: Model.single(
                self.name,
                model.location,
                model.parts.get(role, {}),
                OnnxPackage(
                    {ONLY_PART: component},
                    dict(package.files),
                    {ONLY_PART: package.sources[role]} if role in package.sources else {},
                ),
                model.task,
            )
            for role, component in package.components.items()
        }

    def join(self, model: Model, parts: Mapping[str, Model]) -> Model:
        """Components by role, and the files with the changes of each part.

        Raises ModelError where two parts have changed one file in different ways.
        """
        if len(parts) == 1:
            return next(iter(parts.values()))
        from drupe_onnx.joining import joined_files

        packages = {role: package_of(part) for role, part in parts.items()}
        files = joined_files(package_of(model).files, {role: each.files for role, each in packages.items()})
        sources = {role: source for role, each in packages.items() for source in each.sources.values()}
        package = OnnxPackage({role: each.component for role, each in packages.items()}, files, sources)
        return model.but(payload=package, parts={role: part.facts for role, part in parts.items()})

    def fingerprint(self, model: Model, thorough: bool = True) -> str:
        from drupe_onnx.package_fingerprint import fingerprint_of

        return fingerprint_of(package_of(model), thorough)

    def size(self, model: Model) -> int | None:
        try:
            return size_of(model.location)
        except (OSError, ModelError):
            return None

    def describe(self, model: Model) -> Mapping[str, Any]:
        from drupe_onnx.description import describe

        if model.payload is not None:
            from drupe_onnx.estimates import outlines_of

            package = package_of(model)
            return describe(outlines_of(package), package.files, model.location)
        files = package_files(model.location)
        outlines = {role: read_outline(path) for role, path in files.graphs.items()}
        data = {path for role, graph in files.graphs.items() for path in data_files(graph, outlines[role])}
        return describe(outlines, files.beside(data), model.location)

    def check(self, model: Model, target: Target) -> Sequence[str]:
        from drupe_onnx.operator_check import problems

        components = package_of(model).components
        found = {role: problems(component, target) for role, component in components.items()}
        if len(found) == 1:
            return tuple(next(iter(found.values())))
        return tuple(f"{role}: {problem}" for role, its_problems in found.items() for problem in its_problems)

    def estimate(self, model: Model, context: Context) -> Estimate:
        from drupe_onnx.estimates import estimate

        return estimate(declared(package_of(model)), context)

    def store(self, model: Model, folder: Path, context: Context) -> None:
        from drupe_onnx.package_store import store_package

        store_package(package_of(model), folder, context.scratch)

    def restore(self, model: Model, moved: tuple[Path, Path] | None = None) -> Model:
        from drupe_onnx.package_store import restore_package

        return model.but(payload=restore_package(model.location, moved))


def package_of(model: Model) -> OnnxPackage:
    """The graphs of a model, read where they are not loaded. Raises ModelError for a model of another kind."""
    if model.kind != OnnxKind.name:
        raise ModelError(
            f"this takes a graph: a model of kind '{OnnxKind.name}', not '{model.kind}'",
            where=model.location,
        )
    package = OnnxKind().load(model).payload
    assert isinstance(package, OnnxPackage)
    return package
