"""The pass `recover-scales`."""

from __future__ import annotations

import tempfile
from pathlib import Path

from drupe.api import Context, Form, Model, ModelError
from drupe_blockquant.torch_threads import torch_threads
from drupe_onnx import OnnxPackage
from drupe_recover.configuration import RecoverConfig, refuse_missing
from drupe_text import CalibratingPass


class RecoverScales(CalibratingPass):
    """Trains the scales of quantized matrices and the weights of norms, block by block; levels and zero points stay.

    Each block gets what the quantized blocks before it make of a text, and its targets are the outputs of the source's
    block; those of the head are the source's logits. What does not become better on a part of the text that is held
    out stays as it was, and all of it does where the divergence of the whole model does not fall there by more than
    chance. What torch does not run here stays as well.
    """

    name = "recover-scales"
    summary = "trains scales and norms of a quantized model, block by block, towards its source"
    revision = 4
    Config = RecoverConfig
    requires = Form("onnx", {"weights": "quantized"})
    ensures = Form("onnx")
    libraries = ("drupe-layerwise", "numpy")

    def preview(self, model: Model, config: RecoverConfig, context: Context) -> Model:
        """The model with the same schemes and bytes."""
        refuse_missing()
        return super().preview(model, config, context)

    def run(self, model: Model, config: RecoverConfig, context: Context) -> Model:
        refuse_missing()
        package: OnnxPackage = model.payload
        if not package.sources:
            raise ModelError(
                "the weights were quantized before, so there is nothing to recover them from",
                where=model.location,
                cure="start from the checkpoint in floating point, or leave --recover out",
            )
        sequences = self.sequences(model, config, context)
        context.scratch.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="recover-", dir=context.scratch))
        source = next(iter(package.sources.values()))
        with torch_threads(context.threads):
            from drupe_recover.recovering import Recovering

            notice = Recovering(package.component, source, config, context, folder).run(sequences)
        package.sources = {}
        return model.noticed(notice)
