"""Write a checkpoint of a Qwen2 or Qwen3 as a GGUF file, and have llama.cpp quantize it: a rival for `drupe benchmark`.

    python3 dev.py bench gguf_file CHECKPOINT FILE [--type Q4_0] [--pure]

Needs llama-cpp-python. The types of the tensors are those that `llama-quantize` chooses; with --pure, all matrices have
the type that is named.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from measure import note

TYPES = {"Q4_0": 2, "Q8_0": 7, "Q4_K_M": 15}
"""llama.cpp's numbers of file types."""
SUPPORT = Path(__file__).resolve().parents[1] / "tests" / "support"


def quantize(source: Path, result: Path, kind: str, pure: bool) -> None:
    """Have llama.cpp quantize a GGUF file."""
    import ctypes

    import llama_cpp

    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype, settings.pure = TYPES[kind], pure
    if llama_cpp.llama_model_quantize(str(source).encode(), str(result).encode(), ctypes.byref(settings)):
        raise SystemExit(f"llama.cpp could not quantize {source}")


def main() -> None:
    """Make one file."""
    parser = argparse.ArgumentParser(prog="bench gguf_file", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("--type", choices=TYPES, default="Q4_0", help="(default: %(default)s)")
    parser.add_argument("--pure", action="store_true", help="the same type for all matrices, also for the head")
    arguments = parser.parse_args()
    unquantized = arguments.file.with_suffix(".bf16.gguf")
    sys.path.insert(0, str(SUPPORT))
    from gguf_files import gguf_of

    gguf_of(arguments.checkpoint, "BF16", splits="qwen2").write(unquantized)
    note(f"quantizing {unquantized} ...")
    quantize(unquantized, arguments.file, arguments.type, arguments.pure)
    unquantized.unlink()


if __name__ == "__main__":
    main()
