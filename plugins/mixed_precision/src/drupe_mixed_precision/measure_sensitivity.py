"""The pass `measure-sensitivity`."""

from __future__ import annotations

from pydantic import Field

from drupe.api import Context, Model, Shape
from drupe_mixed_precision.groups import groups_of
from drupe_mixed_precision.losses import SENSITIVITY
from drupe_mixed_precision.measuring import sensitivities
from drupe_onnx import OnnxPackage
from drupe_text import CalibratingPass, CalibrationConfig


class MeasureSensitivityConfig(CalibrationConfig):
    """A few sequences do: the divergences differ by factors, and only their order decides."""

    calibration_sequences: int = Field(4, ge=1, description="how many sequences")
    calibration_length: int = Field(128, ge=2, description="tokens of each sequence")
    block_size: int | None = Field(None, description="where it is given, nothing is measured: there is no choice")
    head_bits: int | None = Field(None, description="likewise")

    @property
    def is_choice(self) -> bool:
        """Whether there is anything to choose by what is measured."""
        return not (self.block_size or self.head_bits)


class MeasureSensitivity(CalibratingPass):
    """Leaves at each matrix what rounding it costs; `allocate-bits` goes by it."""

    name = "measure-sensitivity"
    summary = "measures the KL divergence that each matrix costs when only it is quantized"
    revision = 5
    Config = MeasureSensitivityConfig
    requires = Shape("onnx", {"weights": "float"})
    ensures = Shape("onnx", {"weights": "float"})
    libraries = ("drupe-layerwise", "drupe-blockquant")
    least_tokens = 32

    def preview(self, model: Model, config: MeasureSensitivityConfig, context: Context) -> Model:
        """Nothing shows before it is measured."""
        return super().preview(model, config, context) if config.is_choice else model

    def run(self, model: Model, config: MeasureSensitivityConfig, context: Context) -> Model:
        if not config.is_choice:
            return model
        package: OnnxPackage = model.payload
        sequences = self.sequences(model, config, context)
        for component in package.components.values():
            groups = groups_of(component.graph)
            found = sensitivities(component, groups, sequences, context)
            for group in groups:
                for site in group.sites:
                    site.node.metadata_props[SENSITIVITY] = f"{found[group.name]:.6g}"
        return model
