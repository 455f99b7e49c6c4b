"""Compiled kernels on disk: numba compiles a kernel once for this processor; later, llvmlite loads it without numba.

numba's own cache would need numba to be imported, which takes half a second: a quarter of the time that converting a
small model takes.
"""

import contextlib
import ctypes
import functools
import hashlib
import importlib
import os
import re
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm

from drupe.api import Record

_DECLARATION = re.compile(r"^declare (.*@(?!llvm\.)[\w.$]+\(.*\)).*$", re.MULTILINE)


class Kernel(Record):
    """One compiled entry point: a function that takes addresses, then 64-bit integers.

    `module` is the module of this package whose ENTRY_POINTS has its Python function, under `name`.
    """

    module: str
    name: str
    pointers: int
    integers: int

    @property
    def symbol(self) -> str:
        return f"drupe_{self.name}"


_TABLE = (
    Kernel("kernels", "quantize_16", 14, 12),
    Kernel("kernels", "quantize_32", 14, 12),
    Kernel("kernels", "quantize_weighted_16", 16, 12),
    Kernel("kernels", "quantize_weighted_32", 16, 12),
    Kernel("kernels_gptq", "gptq_columns", 10, 4),
    Kernel("kernels_hqq", "hqq_fit", 6, 3),
    Kernel("kernels_low_rank", "add_product_16", 5, 3),
    Kernel("kernels_low_rank", "add_product_32", 5, 3),
)
KERNELS = {kernel.name: kernel for kernel in _TABLE}

_loaded: dict[Kernel, Callable[..., int]] = {}
_engines: list[Any] = []  # they own the memory that the code is in
_lock = threading.Lock()


def entry_point(kernel: Kernel) -> Callable[..., int]:
    """The kernel as a function of addresses, then integers, that releases the GIL; loaded from disk, or compiled."""
    with _lock:
        if kernel not in _loaded:
            _loaded[kernel] = _load(kernel, _kept(kernel) or _compile(kernel))
        return _loaded[kernel]


def is_ready(kernel: Kernel) -> bool:
    """Whether the kernel can run without being compiled first, which takes some ten seconds."""
    with _lock:
        if kernel not in _loaded and (code := _kept(kernel)):
            _loaded[kernel] = _load(kernel, code)  # the caller is about to use it, and may ask again for each matrix
        return kernel in _loaded


def _compile(kernel: Kernel) -> bytes:
    module = llvm.parse_assembly(_assembly(kernel))
    code: bytes = _machine().emit_object(module)
    _keep(kernel, code)
    return code


def _assembly(kernel: Kernel) -> str:
    """LLVM assembly, optimized for this processor, that needs neither numba nor Python."""
    from numba import cfunc, types
    from numba.core import config as settings

    if settings.CPU_FEATURES is None:  # type: ignore[attr-defined]
        settings.CPU_FEATURES = _features()  # type: ignore[attr-defined]
    entry = importlib.import_module(f"drupe_blockquant.{kernel.module}").ENTRY_POINTS[kernel.name]
    signature = types.int64(*[types.voidptr] * kernel.pointers, *[types.int64] * kernel.integers)
    compiled = cfunc(signature, error_model="numpy")(entry)
    return _stands_alone(compiled.inspect_llvm(), compiled.native_name, kernel.symbol)


def _stands_alone(assembly: str, name: str, symbol: str) -> str:
    """Rename the function `name` to `symbol`. Each foreign function it refers to gets a body that stops the process.

    numba's wrapper refers to functions of Python and of numba that raise exceptions. The kernels raise none.
    """
    assembly = re.sub(rf'(?<=@)"?{re.escape(name)}"?(?=[\s(,])', symbol, assembly)
    return _DECLARATION.sub(r"define internal \1 {\n  call void @llvm.trap()\n  unreachable\n}", assembly)


def _load(kernel: Kernel, code: bytes) -> Callable[..., int]:
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _machine())
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    _engines.append(engine)
    arguments = [ctypes.c_void_p] * kernel.pointers + [ctypes.c_int64] * kernel.integers
    return ctypes.CFUNCTYPE(ctypes.c_int64, *arguments)(engine.get_function_address(kernel.symbol))


def _machine() -> Any:
    """LLVM's target machine for this processor. It belongs to one engine, so each call makes a new one."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_triple(llvm.get_process_triple())
    return target.create_target_machine(
        cpu=llvm.get_host_cpu_name(),
        features=_features(),
        opt=3,
        reloc="static" if target.name.startswith("x86") else "default",
        codemodel="jitdefault",
        jit=True,
    )


def _features() -> str:
    """The instruction sets of this processor, as LLVM names them.

    LLVM uses vectors of 256 bits on processors whose clock rate wider ones once lowered. Since Ice Lake, which VBMI2
    identifies, they hardly lower it, and the kernels are a quarter to four quarters faster with 512.
    """
    features = llvm.get_host_cpu_features()
    wide = ",-prefer-256-bit" if features.get("avx512vbmi2") else ""
    return str(features.flatten()) + wide


# The files: SHA-256 of the code, then the code.


def _kept(kernel: Kernel) -> bytes | None:
    for folder in _folders():
        with contextlib.suppress(OSError):
            content = (folder / _name(kernel)).read_bytes()
            if content[:32] == hashlib.sha256(content[32:]).digest():
                return content[32:]
    return None


def _keep(kernel: Kernel, code: bytes) -> None:
    """Write the code to the first folder that is writable. Where none is, the next process compiles again."""
    for folder in _folders():
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=folder, suffix=".part", delete=False) as file:
                file.write(hashlib.sha256(code).digest() + code)
            part = Path(file.name)
            try:
                part.replace(folder / _name(kernel))
            except OSError:
                part.unlink()
                raise
            return


def _folders() -> Iterator[Path]:
    """Where compiled kernels are kept: beside Python's own compiled files, or in the user's cache."""
    if chosen := os.environ.get("DRUPE_BLOCKQUANT_CACHE"):
        yield Path(chosen)
        return
    yield Path(__file__).parent / "__pycache__"
    with contextlib.suppress(RuntimeError):  # no home
        yield _user_cache() / "drupe" / "kernels"


def _user_cache() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData/Local"))
    if sys.platform == "darwin":
        return Path.home() / "Library/Caches"
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))


def _name(kernel: Kernel) -> str:
    return f"{kernel.symbol}-{_fingerprint()}.o"


@functools.cache
def _fingerprint() -> str:
    """A digest of everything that decides the code: this package's sources, the compilers, the processor."""
    digest = hashlib.sha256()
    folder = Path(__file__).parent
    others = [folder / name for name in ("kernel_calls.py", "hqq.py", "machine_code.py")]
    for source in (*sorted(folder.glob("kernels*.py")), *others):
        digest.update(source.read_bytes())
    processor = (llvm.get_process_triple(), llvm.get_host_cpu_name(), _features())
    digest.update(repr((version("numba"), version("llvmlite"), processor)).encode())
    return digest.hexdigest()[:16]
