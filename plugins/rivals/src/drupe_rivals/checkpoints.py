"""The runtime `transformers`: checkpoints, as their makers run them."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from drupe.api import CheckFailed, Model, ModelError, Runtime, Target, installed_version
from drupe_rivals.rows import RowsSession, Step
from drupe_rivals.wheels import load, refuse_elsewhere, refuse_missing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NEEDED = ("transformers", "torch")
INSTALL = "pip install torch transformers"
TASK = "text-generation"


class Transformers(Runtime):
    """Opens checkpoints of models that write text, in the type of their weights, on the processor."""

    name = "transformers"
    distributions = ("transformers",)

    def version(self) -> str | None:
        versions = [installed_version((name,)) for name in NEEDED]
        return None if None in versions else f"{versions[0]}, torch {versions[1]}"

    def refusal(self, model: Model, target: Target) -> str | None:
        if model.kind != "hf" or not model.location.is_dir():
            return "transformers runs checkpoints"
        if not any(model.location.glob("*.safetensors")):
            what = "transformers is measured with checkpoints in safetensors files, and there are none"
            raise ModelError(what, where=model.location, cure="save it with transformers' save_pretrained()")
        if model.task != TASK:
            what = f"transformers is measured with models of the task {TASK}, and this one is of the task {model.task}"
            raise ModelError(what, where=model.location, cure="drupe optimize makes a package, which can be measured")
        refuse_elsewhere(self.name, target)
        refuse_missing(NEEDED, INSTALL)
        return None

    def open(self, model: Model, target: Target, *, max_length: int | None = None, threads: int = 0) -> RowsSession:
        refuse_missing(NEEDED, INSTALL)
        torch, transformers = (load(name, name, INSTALL) for name in ("torch", "transformers"))
        if threads:
            torch.set_num_threads(threads)
        transformers.utils.logging.disable_progress_bar()
        try:
            opened = transformers.AutoModelForCausalLM.from_pretrained(
                model.location, dtype="auto", local_files_only=True, use_safetensors=True, trust_remote_code=False
            )
        except (OSError, ValueError, ImportError, RuntimeError) as error:
            raise CheckFailed(f"transformers cannot open the checkpoint: {error}", where=model.location) from error
        return TransformersSession(torch, opened.eval())


class TransformersSession(RowsSession):
    """A checkpoint that is open in transformers, with its own cache."""

    def __init__(self, torch: Any, model: Any) -> None:
        self._torch, self._model = torch, model
        text = model.config.get_text_config()
        self.vocabulary = int(text.vocab_size)
        self.context_length = self.max_length = getattr(text, "max_position_embeddings", None)
        self.threads = torch.get_num_threads()
        # Without it, a prompt's logits are computed for all of its tokens.
        keeps = "logits_to_keep" in inspect.signature(model.forward).parameters
        self._settings = {"use_cache": True, **({"logits_to_keep": 1} if keeps else {})}

    def begin(self, rows: int, room: int) -> Step:
        cache: Any = None

        def step(tokens: NDArray[np.int64]) -> NDArray[np.floating[Any]]:
            nonlocal cache
            with self._torch.inference_mode():
                given = self._model(self._torch.from_numpy(tokens), past_key_values=cache, **self._settings)
            cache = given.past_key_values
            logits: NDArray[np.floating[Any]] = given.logits[:, -1].float().numpy()
            return logits

        return step

    def close(self) -> None:
        self._model = None
