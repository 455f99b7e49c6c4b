"""Trains `drupe-demo`, the small language model that Drupe carries, from the standard library's own text.

What it does: reads the corpus (corpus.py), trains a tokenizer on it (bpe.py), trains a Qwen3-shaped decoder of about
5.6 million parameters on the packed tokens (Muon for the matrices, AdamW for the rest; warm-up, then a cosine down to
nothing), and writes the checkpoint folder, the held-out text and the model card where the package looks for them.
With `--architecture` it trains another of architectures.py, such as those that `bench quality` measures with.

The budget is wall time (`--minutes`), so that it fits any machine, or an exact number of steps (`--steps`), which makes
the run repeatable. Sequences have 256 tokens for most of the way and 1024 at the end: short ones are cheap, and a
little of the long ones is enough to learn positions. The state is saved every few minutes; `--resume` goes on from it.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerFast

from architectures import ARCHITECTURES
from bpe import END_OF_TEXT, save_tokenizer, train_tokenizer
from card import write_card
from corpus import Corpus, load_corpus
from measure import held_out_quality

DEMO = "qwen3"
PACKAGE = Path(__file__).resolve().parent.parent / "src" / "drupe_demo"

# (share of the budget from which it holds, tokens per sequence)
LENGTH_STAGES = ((0.0, 256), (0.85, 1024))
# Up to here plain attention and compiled code; the stage of long sequences is too short to earn a second compilation.
SHORT_LENGTH = 256
WARMUP_STEPS = 100
LOG_EVERY_STEPS = 50
WEIGHT_DECAY = 0.1


@dataclass
class Progress:
    """How far the run has come; what is saved and restored besides weights and optimizer state."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    train_loss: float = float("nan")


def main(argv: Sequence[str] | None = None) -> None:
    options = _parse_options(argv)
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    architecture = ARCHITECTURES[options.architecture]
    corpus = load_corpus()
    tokenizer = train_tokenizer(corpus.documents, architecture.vocabulary)
    tokens = pack(tokenizer, corpus)
    print(f"{len(corpus.documents)} documents, {corpus.n_bytes} bytes, {len(tokens)} tokens", flush=True)
    model = architecture.create(tokenizer)
    progress = train(model, tokens, options)
    folder = options.output or PACKAGE / "model"
    save(model, tokenizer, folder)
    if options.output is None:
        (PACKAGE / "heldout.txt").write_text(corpus.held_out, encoding="utf-8")
    quality = held_out_quality(model, tokenizer, corpus.held_out)
    print(f"held out: {quality}", flush=True)
    card = (options.output or PACKAGE) / "MODEL_CARD.md"
    write_card(card, architecture, model, tokenizer, corpus, len(tokens), asdict(progress), quality)


def _parse_options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architecture", choices=ARCHITECTURES, default=DEMO, help="default: %(default)s, the demo's")
    parser.add_argument("--minutes", type=float, default=45.0, help="wall time to train for")
    parser.add_argument("--steps", type=int, help="train for this many steps instead of --minutes")
    parser.add_argument("--threads", type=int, default=2, help="threads torch may use")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch-tokens", type=int, default=4096, help="tokens per step")
    parser.add_argument("--lr", type=float, default=4e-3, help="peak learning rate")
    parser.add_argument("--compile", action="store_true", help="compile the model (needs a C++ compiler)")
    parser.add_argument("--no-bf16", action="store_true", help="compute in float32 (on CPUs without bf16 it is faster)")
    parser.add_argument("--output", type=Path, help="folder for the checkpoint and its card (default: the package's)")
    parser.add_argument("--state", type=Path, default=Path("demo_state.pt"), help="where to save the training state")
    parser.add_argument("--save-minutes", type=float, default=4.0, help="wall time between two saved states")
    parser.add_argument("--resume", action="store_true", help="go on from --state")
    options = parser.parse_args(argv)
    if options.output is None and options.architecture != DEMO:
        parser.error("--architecture needs --output: the package folder is the demo model's")
    return options


def pack(tokenizer: PreTrainedTokenizerFast, corpus: Corpus) -> np.ndarray:
    """All documents' tokens in one row, each document preceded by the end-of-text token."""
    separator = tokenizer.convert_tokens_to_ids(END_OF_TEXT)
    encodings = tokenizer.backend_tokenizer.encode_batch(list(corpus.documents))
    return np.concatenate([np.array([separator, *encoding.ids], dtype=np.uint16) for encoding in encodings])


class Batches:
    """Sequences from random offsets, drawn so that one pass over the text sees every token about once.

    The generator is seeded by step, so that a resumed run draws what the interrupted one would have.
    """

    def __init__(self, tokens: np.ndarray, batch_tokens: int, seed: int) -> None:
        self._tokens = tokens
        self._batch_tokens = batch_tokens
        self._seed = seed

    def draw(self, step: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and the tokens that follow them, each [sequences, length]."""
        generator = np.random.default_rng((self._seed, step))
        n_sequences = max(1, self._batch_tokens // length)
        # One offset from each of n equal slices: evenly spread over the text, where independent draws would cluster.
        usable = len(self._tokens) - length - 1
        starts = ((np.arange(n_sequences) + generator.random(n_sequences)) * usable / n_sequences).astype(np.int64)
        rows = self._tokens[starts[:, None] + np.arange(length + 1)].astype(np.int64)
        batch = torch.from_numpy(rows)
        return batch[:, :-1], batch[:, 1:]


def train(model: PreTrainedModel, tokens: np.ndarray, options: argparse.Namespace) -> Progress:
    """Train `model` in place until the budget is spent."""
    optimizers = make_optimizers(model, options.lr)
    progress = _restore(model, optimizers, options.state) if options.resume else Progress()
    compiled_loss = torch.compile(_loss, dynamic=False) if options.compile else _loss
    batches = Batches(tokens, options.batch_tokens, options.seed)
    model.train()
    started = time.monotonic() - progress.seconds
    saved = logged = time.monotonic()
    while (share := _share_done(progress, options)) < 1.0:
        length = sequence_length(share)
        inputs, targets = batches.draw(progress.step, length)
        loss_of = compiled_loss if length <= SHORT_LENGTH else _loss
        _choose_attention(model, length)
        _set_learning_rate(optimizers, options.lr * rate_factor(progress.step, share))
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=not options.no_bf16):
            loss = loss_of(model, inputs, targets)
        _update(model, optimizers, loss)
        progress = _advanced(progress, loss.item(), inputs.numel(), time.monotonic() - started)
        if progress.step % LOG_EVERY_STEPS == 0:
            _log(progress, share, length, LOG_EVERY_STEPS / (time.monotonic() - logged), options)
            logged = time.monotonic()
        if time.monotonic() - saved > 60 * options.save_minutes:
            _save_state(model, optimizers, progress, options.state)
            saved = time.monotonic()
    _save_state(model, optimizers, progress, options.state)
    return progress


def _loss(model: PreTrainedModel, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    hidden = model.model(input_ids=inputs, use_cache=False).last_hidden_state
    logits = model.lm_head(hidden)
    if limit := getattr(model.config, "final_logit_softcapping", None):
        logits = limit * torch.tanh(logits / limit)
    return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())


def _choose_attention(model: PreTrainedModel, length: int) -> None:
    """Plain matrix products for short sequences: there, the CPU's flash attention costs more than it saves."""
    wanted = "eager" if length <= SHORT_LENGTH or not model._supports_sdpa else "sdpa"
    if model.config._attn_implementation != wanted:
        model.set_attn_implementation(wanted)


def _update(model: PreTrainedModel, optimizers: Sequence[torch.optim.Optimizer], loss: torch.Tensor) -> None:
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def make_optimizers(model: PreTrainedModel, lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices, which it trains in far fewer steps than AdamW; AdamW for embedding and norms."""
    in_layers = list(model.model.layers.parameters())
    matrices = [parameter for parameter in in_layers if parameter.ndim == 2]
    others = [parameter for parameter in model.parameters() if not any(parameter is matrix for matrix in matrices)]
    return [
        torch.optim.Muon(matrices, lr=lr, weight_decay=WEIGHT_DECAY, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=lr, betas=(0.9, 0.95), weight_decay=0.0, foreach=True),
    ]


def sequence_length(share: float) -> int:
    return max(length for start, length in LENGTH_STAGES if share >= start)


def rate_factor(step: int, share: float) -> float:
    """Linear warm-up by steps, then a cosine over the budget down to zero."""
    return min(1.0, (step + 1) / WARMUP_STEPS) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, share)))


def _set_learning_rate(optimizers: Sequence[torch.optim.Optimizer], lr: float) -> None:
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = lr


def _share_done(progress: Progress, options: argparse.Namespace) -> float:
    if options.steps is not None:
        return progress.step / options.steps
    return progress.seconds / (60.0 * options.minutes)


def _advanced(before: Progress, loss: float, n_tokens: int, seconds: float) -> Progress:
    smoothed = loss if math.isnan(before.train_loss) else 0.98 * before.train_loss + 0.02 * loss
    return Progress(before.step + 1, before.tokens + n_tokens, seconds, smoothed)


def _log(progress: Progress, share: float, length: int, steps_per_second: float, options: argparse.Namespace) -> None:
    rate = steps_per_second * options.batch_tokens
    print(
        f"step {progress.step} ({share:.1%}, {progress.seconds:.0f} s) length {length} tokens {progress.tokens} "
        f"loss {progress.train_loss:.3f} at {rate:.0f} tokens/s",
        flush=True,
    )


def _save_state(
    model: PreTrainedModel, optimizers: Sequence[torch.optim.Optimizer], progress: Progress, path: Path
) -> None:
    state = {
        "model": model.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
        "progress": asdict(progress),
    }
    # Written beside and renamed: a kill while writing must not cost the state before.
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)


def _restore(model: PreTrainedModel, optimizers: Sequence[torch.optim.Optimizer], path: Path) -> Progress:
    state = torch.load(path, weights_only=True)
    model.load_state_dict(state["model"])
    for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    return Progress(**state["progress"])


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write the checkpoint; the model itself becomes bf16, as it is shipped."""
    folder.mkdir(parents=True, exist_ok=True)
    model.to(torch.bfloat16).eval()
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        do_sample=True,
        temperature=0.7,
    )
    model.save_pretrained(folder)
    save_tokenizer(tokenizer, folder)


if __name__ == "__main__":
    main()
