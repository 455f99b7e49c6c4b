"""The pass `measure-sensitivity`."""

from __future__ import annotations

from pydantic import Field

from drupe.api import Context, Form, Model
from drupe_mixed_precision.groups import experts_of, groups_of
from drupe_mixed_precision.losses import SENSITIVITY
from drupe_mixed_precision.sensitivity_measurement import sensitivities
from drupe_onnx import OnnxPackage
from drupe_text import CalibratingPass, CalibrationConfig


class MeasureSensitivityConfig(CalibrationConfig):
    """A few sequences are enough: divergences of matrices differ by factors, and only their order matters."""

    calibration_sequences: int = Field(4, ge=1, description="how many sequences of the text are used")
    calibration_length: int = Field(128, ge=2, description="tokens in each sequence")
    block_size: int | None = Field(None, description="if it is given, nothing is measured: schemes are not chosen")
    head_bits: int | None = Field(None, description="likewise")

    @property
    def is_choice(self) -> bool:
        """Whether schemes will be chosen by the measurement."""
        return not (self.block_size or self.head_bits)


class MeasureSensitivity(CalibratingPass):
    """Stores at each matrix the KL divergence that rounding it costs, for `allocate-bits`.

    The experts of a layer are measured together: they get one scheme.
    """

    name = "measure-sensitivity"
    summary = "measures the KL divergence that each matrix costs when only this matrix is quantized"
    revision = 7
    Config = MeasureSensitivityConfig
    requires = Form("onnx", {"weights": ("float", "mixed")})
    ensures = Form("onnx")
    libraries = ("drupe-layerwise", "drupe-blockquant")
    least_tokens = 32

    def preview(self, model: Model, config: MeasureSensitivityConfig, context: Context) -> Model:
        """The unchanged model: a preview does not show measurements."""
        return super().preview(model, config, context) if config.is_choice else model

    def run(self, model: Model, config: MeasureSensitivityConfig, context: Context) -> Model:
        if not config.is_choice:
            return model
        package: OnnxPackage = model.payload
        sequences = self.sequences(model, config, context)
        graph = package.component.graph
        groups, experts = groups_of(graph), experts_of(graph)
        found = sensitivities(package.component, [*groups, *experts], sequences, context)
        nodes = [(group.name, site.node) for group in groups for site in group.sites]
        nodes += [(each.name, each.site.node) for each in experts]
        for name, node in nodes:
            node.metadata_props[SENSITIVITY] = f"{found[name]:.6g}"
        return model
