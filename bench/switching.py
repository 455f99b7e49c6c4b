"""Decode with an adapter that is switched at run time, against the package in which it is merged.

    python3 dev.py bench switching [SHAPE] [--rank 16] [--modules attention|all] [--rounds 12] [--threads 2]

The adapter has random values. Three packages of the shape are made: without an adapter, with it merged, and with it
beside the base. In a round each reads a prompt and generates some tokens, one right after another; the last package
once with the adapter and once without. What an active adapter costs is the median over the rounds of its time divided
by that of the same open package with none active: between two open packages, even equal ones, chance makes 10 %. Times
are those of the processor, because other load on the machine disturbs these least.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import time
from pathlib import Path
from typing import Any

from checkpoints import SHAPES, cached
from drupe.api import usable_threads
from measure import CACHE, busy_machine, note, show
from rates import opened

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MODULES = {"attention": ATTENTION, "all": (*ATTENTION, "gate_proj", "up_proj", "down_proj")}
NAME = "bench"
BASE = "switched, none active"


def write_adapter(folder: Path, base: Path, rank: int, modules: tuple[str, ...]) -> Path:
    """An adapter for some modules of each layer, as peft saves it."""
    import numpy as np
    from safetensors import safe_open
    from safetensors.numpy import save_file

    chosen = np.random.default_rng(0)
    tensors: dict[str, Any] = {}
    for path in sorted(base.glob("*.safetensors")):
        with safe_open(path, "np") as file:
            for name in file.keys():  # noqa: SIM118 - it is no mapping
                module = name.removesuffix(".weight")
                if name.endswith(".weight") and module.rpartition(".")[2] in modules:
                    rows, columns = file.get_slice(name).get_shape()
                    for part, shape in (("A", (rank, columns)), ("B", (rows, rank))):
                        values = chosen.standard_normal(shape, np.float32) * 0.01
                        tensors[f"base_model.model.{module}.lora_{part}.weight"] = values
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank, "target_modules": list(modules)}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def decoded(og: Any, model: Any, prompt: int, new: int, adapters: Any = None) -> float:
    """Seconds of the processor for a token after the first one."""
    parameters = og.GeneratorParams(model)
    parameters.set_search_options(do_sample=False, max_length=prompt + new, min_length=prompt + new)
    generator = og.Generator(model, parameters)
    if adapters is not None:
        generator.set_active_adapter(adapters, NAME)
    generator.append_tokens(list(range(100, 100 + prompt)))
    generator.generate_next_token()
    start = time.process_time()
    for _ in range(new - 1):
        generator.generate_next_token()
    return (time.process_time() - start) / (new - 1)


def main() -> None:
    """Parse the command line, make the packages, measure, print."""
    parser = argparse.ArgumentParser(prog="bench switching", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("shape", nargs="?", default="qwen2.5-0.5b", choices=SHAPES, help="(default: %(default)s)")
    parser.add_argument("--rank", type=int, default=16, help="(default: %(default)s)")
    parser.add_argument("--modules", choices=MODULES, default="all", help="(default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=12, help="(default: %(default)s)")
    parser.add_argument("--threads", type=int, default=usable_threads(), help="threads of each (default: %(default)s)")
    parser.add_argument("--prompt", type=int, default=32, help="tokens of the prompt (default: %(default)s)")
    parser.add_argument("--new", type=int, default=40, help="tokens generated (default: %(default)s)")
    arguments = parser.parse_args()
    import onnxruntime_genai as og

    import drupe

    busy, base = busy_machine(), cached(arguments.shape)
    home = CACHE / "packages" / f"{arguments.shape}-adapters"
    shutil.rmtree(home, ignore_errors=True)
    adapter = write_adapter(home / "adapter", base, arguments.rank, MODULES[arguments.modules])
    made: dict[str, dict[str, Any]] = {
        "plain": {},
        "merged": {"adapter": [adapter]},
        "switched": {"adapters": [f"{NAME}={adapter}"]},
    }
    for name, options in made.items():
        note(f"making {name} ...")
        drupe.optimize(base, home / name, provider="cpu", precision="int4", verify=False, **options)
    models = {name: opened(og, home / name, arguments.threads) for name in made}
    adapters = og.Adapters(models["switched"])
    file = home / "switched" / "adapters" / f"{NAME}.onnx_adapter"
    adapters.load(str(file), NAME)
    cases = {
        "merged": (models["merged"], None),
        "plain": (models["plain"], None),
        BASE: (models["switched"], None),
        "switched, active": (models["switched"], adapters),
    }
    times: dict[str, list[float]] = {name: [] for name in cases}
    for model, active in cases.values():
        decoded(og, model, arguments.prompt, 3, active)  # the first run allocates
    for _ in range(arguments.rounds):
        for name, (model, active) in cases.items():
            times[name].append(1e3 * decoded(og, model, arguments.prompt, arguments.new, active))
    rows = []
    for name, own in times.items():
        more = statistics.median(ours / theirs for theirs, ours in zip(times[BASE], own, strict=True)) - 1
        rows.append((name, f"{min(own):.2f} ms", f"{statistics.median(own):.2f} ms", f"{100 * more:+.1f} %"))
    data = (home / "switched" / "model.onnx.data").stat().st_size
    title = (
        f"a decoded token: {arguments.shape}, rank {arguments.rank} on {arguments.modules} modules, adapter "
        f"{file.stat().st_size / 1e6:.1f} MB beside {data / 1e6:.0f} MB, {arguments.threads} threads"
    )
    show(title, ("", "least", "median", "more than with none active, median of rounds"), rows, [busy])


if __name__ == "__main__":
    main()
