"""Measure one package's prefill and decode rates in this process, through onnxruntime-genai.

    python3 dev.py bench rates PACKAGE [--prompt 128] [--new 64] [--threads N]

Prints JSON; `bench decode` compares two packages with it.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path
from typing import Any


def rates(package: Path, prompt: int, new: int, threads: int | None, repeats: int) -> dict[str, float]:
    """The best rates of several runs: prompt tokens and new tokens a second. Greedy, without stopping at end tokens.

    threads: None for the number in the package's genai_config.
    """
    import onnxruntime_genai as og

    model = opened(og, package, threads)
    vocabulary = json.loads((package / "genai_config.json").read_text("utf-8"))["model"]["vocab_size"]
    chosen = random.Random(0)
    tokens = [chosen.randrange(vocabulary) for _ in range(prompt)]
    cache = window(package)
    once(og, model, tokens, 2, cache)  # the first run allocates
    runs = [once(og, model, tokens, new, cache) for _ in range(repeats)]
    return {"prefill": prompt / min(run[0] for run in runs), "decode": (new - 1) / min(run[1] for run in runs)}


def opened(og: Any, package: Path, threads: int | None) -> Any:
    """The package in onnxruntime-genai. threads: None for the number in its genai_config."""
    settings = og.Config(str(package))
    if threads is not None:
        options = {"intra_op_num_threads": threads}
        settings.overlay(json.dumps({"model": {"decoder": {"session_options": options}}}))
    return og.Model(settings)


def window(package: Path) -> int:
    """The sliding window of its genai_config in tokens, or 0. The operator refuses a cache that is shorter."""
    decoder = json.loads((package / "genai_config.json").read_text("utf-8"))["model"]["decoder"]
    return int(decoder.get("sliding_window", {}).get("window_size", 0))


def once(og: Any, model: Any, tokens: list[int], new: int, cache: int = 0) -> tuple[float, float]:
    """Seconds to the first new token, and seconds for the later ones, with a cache for at least `cache` tokens."""
    parameters = og.GeneratorParams(model)
    length = max(len(tokens) + new, cache)
    parameters.set_search_options(do_sample=False, max_length=length, min_length=length)
    generator = og.Generator(model, parameters)
    start = time.perf_counter()
    generator.append_tokens(tokens)
    generator.generate_next_token()
    first = time.perf_counter()
    for _ in range(new - 1):
        generator.generate_next_token()
    return first - start, time.perf_counter() - first


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(prog="bench rates", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("package", type=Path)
    parser.add_argument("--prompt", type=int, default=128, help="tokens of the prompt (default: %(default)s)")
    parser.add_argument("--new", type=int, default=64, help="tokens generated (default: %(default)s)")
    parser.add_argument("--threads", type=int, help="instead of what the package's genai_config says")
    parser.add_argument("--repeats", type=int, default=2, help="(default: %(default)s)")
    arguments = parser.parse_args()
    print(json.dumps(rates(arguments.package, arguments.prompt, arguments.new, arguments.threads, arguments.repeats)))


if __name__ == "__main__":
    main()
