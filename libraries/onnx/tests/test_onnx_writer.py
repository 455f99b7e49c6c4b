"""The writer: it writes the values that numpy computes, stays within any memory budget, and stops cleanly."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections import namedtuple
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from drupe.api import Cancelled, ModelError, OutputError, Progress, replace
from drupe_files import sharing
from drupe_onnx import (
    Affine,
    Array,
    Cast,
    Concat,
    Expression,
    ExternalTensor,
    Files,
    OnnxPackage,
    OutputSpec,
    Permute,
    Produced,
    Producer,
    Reshape,
    SafetensorsTensor,
    Transpose,
    files,
    initializer,
    ir,
    read_header,
    write_package,
)
from drupe_onnx import layout as layouts
from drupe_onnx import writer as writers
from drupe_onnx.layout import Layout
from drupe_onnx.loading import load_package
from drupe_onnx.package import initializers_of
from drupe_onnx.package_folder import package_files
from drupe_onnx.weights import expression_of

FLOAT, FLOAT16, BFLOAT16 = ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16


class Quantize(Producer):
    """A toy quantizer: bytes, and one scale for each row."""

    source: Expression
    fail_at: int = -1

    rows = property(lambda self: self.source.shape[0])
    label = property(lambda self: "quantize w")
    outputs = property(
        lambda self: (
            OutputSpec("packed", self.source.shape, ir.DataType.UINT8),
            OutputSpec("scales", (self.rows, 1), FLOAT),
            OutputSpec("unused", (self.rows, 2), FLOAT),
        )
    )

    def produce(self, start: int, stop: int, files: Files) -> tuple[np.ndarray, ...]:
        if start <= self.fail_at < stop:
            raise ZeroDivisionError("a defect")
        rows = self.source.rows(start, stop, files).astype(np.float32)
        scales = np.abs(rows).max(1, keepdims=True) / 127
        with np.errstate(invalid="ignore"):
            packed = (np.round(rows / scales) + 128).astype(np.uint8)
        return packed, scales, np.zeros((stop - start, 2), np.float32)

    def working_bytes(self, rows: int) -> int:
        return self.source.working_bytes(rows) + rows * self.source.shape[1] * 9


@pytest.fixture
def tiny(monkeypatch, make_context):
    """A context in which even small weights take many chunks."""
    monkeypatch.setattr(layouts, "CHUNK", 3000)
    monkeypatch.setattr(layouts, "LONGEST_ROW", 1000)
    monkeypatch.setattr(writers, "_HASHED", 1000)
    monkeypatch.setattr(writers, "_RESERVED", 0)
    return make_context(memory_budget=20_000, threads=3)


def values_in(folder: Path) -> dict[str, np.ndarray]:
    """The weights of a written package, as onnx itself reads them."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(folder / "model.onnx")
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def matrix(rows: int, columns: int, dtype: type = np.float32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, columns)).astype(dtype)


@pytest.mark.parametrize("shape", [(1, 1), (1, 700), (700, 1), (97, 61), (256, 128), (3, 2048)])
def test_the_written_values_equal_numpys(shape, tiny, out, tmp_path, write_safetensors, make_package):
    a, brain = matrix(*shape), matrix(*shape, ml_dtypes.bfloat16)
    cube = np.arange(4 * 6 * 50, dtype=np.float32).reshape(4, 6, 50)
    tensors = read_header(
        write_safetensors(tmp_path / "a.safetensors", {"a": a, "brain": brain, "cube": cube, "half": a.astype("f2")})
    )
    A, B = tensors["a"], tensors["brain"]
    packed = np.round(a / (np.abs(a).max(1, keepdims=True) / 127)) + 128
    expected = {
        "copy": (A, a),
        "brain": (B, brain),
        "wide": (Cast(B, FLOAT), brain.astype(np.float32)),
        "half": (Cast(A, FLOAT16), a.astype(np.float16)),
        "half wide": (Cast(tensors["half"], FLOAT), a.astype("f2").astype("f4")),
        "transpose": (Transpose(B), brain.T),
        "wide transpose": (Transpose(Cast(B, FLOAT)), brain.T.astype(np.float32)),
        "transposed concat": (Transpose(Concat((A, A, Cast(B, FLOAT)))), np.concatenate([a, a, brain.astype("f4")]).T),
        "plus one": (Affine(A, 1.0, 1.0), a + np.float32(1)),
        "experts": (Cast(tensors["cube"], FLOAT16), cube.astype(np.float16)),
        "permuted": (Permute(tensors["cube"], (1, 0, 2)), cube.transpose(1, 0, 2)),
        "array": (Array(a * 2), a * 2),
        "packed": (Produced(Quantize(A), 0), packed.astype(np.uint8)),
        "scales": (Produced(Quantize(A), 1), np.abs(a).max(1, keepdims=True) / 127),
        "flat": (Reshape(Produced(Quantize(A), 0), (-1,)), packed.astype(np.uint8).reshape(-1)),
        "cast of a product": (
            Cast(Produced(Quantize(A), 1), FLOAT16),
            (np.abs(a).max(1, keepdims=True) / 127).astype("f2"),
        ),
        "scalar": (Array(np.array(3, np.int64)), np.array(3, np.int64)),
        "empty": (Array(np.zeros((0, 5), np.float32)), np.zeros((0, 5), np.float32)),
    }
    package = make_package({name: expression for name, (expression, _) in expected.items()})
    digests = write_package(package, out, tiny)
    written = values_in(out)
    for name, (_, values) in expected.items():
        if values.dtype == ml_dtypes.bfloat16:
            values = values.astype(np.float32)
            written[name] = written[name].astype(np.float32)
        np.testing.assert_array_equal(written[name], values, err_msg=name)
        assert written[name].shape == values.shape
    assert digests == {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in out.iterdir()}
    loaded = load_package(package_files(out))
    assert [v.name for v in initializers_of(loaded.component)] == list(expected)


def test_the_test_above_writes_many_chunks(tiny):
    """Otherwise `test_the_written_values_equal_numpys` would not test the division into chunks."""
    source = SafetensorsTensor(Path("x"), "x", FLOAT, (256, 128), 0)
    graph = ir.Graph([], [], nodes=[], initializers=[initializer("x", source), initializer("t", Transpose(source))])
    walks = Layout(ir.Model(graph, ir_version=10)).walks
    counts = [sum(chunk.walk is walk for chunk in layouts.chunks(walks, 20_000, 3)) for walk in walks]
    assert min(counts) > 10


def test_types_smaller_than_a_byte_are_written_packed(tiny, out, tmp_path, make_package):
    values = np.random.default_rng(0).integers(-8, 8, (99, 51)).astype(ml_dtypes.int4)
    path = tmp_path / "int4.bin"
    path.write_bytes(ir.Tensor(values).tobytes())
    source = ExternalTensor(path, ir.DataType.INT4, (99, 51), 0)
    write_package(make_package({"copy": source, "made": Array(values), "both": Concat((source, source))}), out, tiny)
    loaded = {value.name: expression_of(value) for value in initializers_of(load_package(package_files(out)).component)}
    with Files() as files:
        for name, expected in {"copy": values, "made": values, "both": np.concatenate([values, values])}.items():
            np.testing.assert_array_equal(loaded[name].value(files).astype(int), expected.astype(int))


def test_equal_expressions_are_stored_once(out, make_context, make_package):
    a = matrix(100, 100)
    package = make_package({"embedding": Array(a), "head": Array(a.copy()), "flat": Reshape(Array(a), (-1,))})
    write_package(package, out, make_context())
    assert (out / "model.onnx.data").stat().st_size == a.nbytes
    np.testing.assert_array_equal(values_in(out)["head"], a)


def test_a_producer_runs_once_for_all_its_outputs(out, make_context, make_package):
    calls = []

    class Counting(Quantize):
        def produce(self, start, stop, files):
            calls.append((start, stop))
            return super().produce(start, stop, files)

    one, two = Counting(Array(matrix(400, 64))), Counting(Array(matrix(400, 64)))
    write_package(make_package({"packed": Produced(one, 0), "scales": Produced(two, 1)}), out, make_context())
    assert sum(stop - start for start, stop in calls) == 400


def test_large_weights_are_aligned_to_pages_and_others_to_cache_lines(make_package):
    package = make_package(
        {
            f"w{i}": SafetensorsTensor(Path("x"), f"w{i}", FLOAT, (size,), 0)
            for i, size in enumerate([300, 1 << 18, 999])
        }
    )
    offsets = [entry.region.offset for entry in Layout(package.component).entries]
    assert offsets == [0, 4096, 4096 + (1 << 20)]


def test_files_are_copied_into_their_folders_and_links_are_followed(out, tmp_path, make_context, make_package):
    (tmp_path / "blob").write_bytes(b"content" * 500_000)
    link = tmp_path / "tokenizer.json"
    link.symlink_to(tmp_path / "blob")
    digests = write_package(make_package({}, {"tokenizer.json": link, "a/b.txt": b"text"}), out, make_context())
    assert not (out / "tokenizer.json").is_symlink()
    assert (out / "tokenizer.json").read_bytes() == b"content" * 500_000
    assert (out / "a" / "b.txt").read_bytes() == b"text"
    assert digests["a/b.txt"] == hashlib.sha256(b"text").hexdigest()
    assert digests["tokenizer.json"] == hashlib.sha256(b"content" * 500_000).hexdigest()


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "", "a\\b", "C:x"])
def test_a_file_name_that_points_outside_the_folder_is_refused(name, out, make_context, make_package):
    with pytest.raises(ModelError, match="not allowed as a name inside a package"):
        write_package(make_package({}, {name: b"x"}), out, make_context())


def test_progress_counts_every_byte(tiny, out, make_package):
    class Count(Progress):
        total = done = finished = 0

        def start(self, label, total, unit="bytes"):
            self.total = total

        def advance(self, amount):
            with lock:
                self.done += amount

        def finish(self):
            self.finished += 1

    lock, count = threading.Lock(), Count()
    package = make_package({"a": Array(matrix(100, 77)), "t": Transpose(Array(matrix(70, 70)))}, {"x": b"1234"})
    write_package(package, out, replace(tiny, progress=count))
    assert count.done == count.total == 4 * (7700 + 4900) + 4
    assert count.finished == 1


# Memory

MEMORY = """
    import json, os, resource, sys
    from pathlib import Path
    from drupe.api import Context, Target
    from drupe_onnx import Capabilities
    from drupe_onnx import Cast, OnnxPackage, SafetensorsTensor, Transpose, initializer, ir, write_package
    import google.protobuf, onnx, drupe_onnx.kind, hashlib, threading, shutil

    source, out, budget = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    rows, columns = json.loads(sys.argv[4])
    wide = ir.DataType.FLOAT
    weight = SafetensorsTensor(source, "w", ir.DataType.BFLOAT16, (rows, columns), 0)
    flat = SafetensorsTensor(source, "flat", ir.DataType.BFLOAT16, (1, rows * columns), 0)
    weights = {"t": Transpose(Cast(weight, wide)), "copy": weight, "wide": Cast(weight, wide), "flat": Cast(flat, wide)}
    values = [initializer(name, expression) for name, expression in weights.items()]
    graph = ir.Graph([], [], nodes=[], initializers=values, opset_imports={"": 21}, name="g")
    package = OnnxPackage({"model": ir.Model(graph, ir_version=10)})
    target = Target("test", "1", Capabilities(">=1", {}, ("float32",)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    write_package(package, out, Context(target, out, threads=2, memory_budget=budget))
    print(before * 1024, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss counts in other units elsewhere")
@pytest.mark.parametrize("budget", [32 << 20, 128 << 20])
def test_memory_stays_within_the_budget_for_models_of_any_size(budget, out, tmp_path):
    rows, columns = 25_000, 2_048
    source = tmp_path / "sparse.bin"
    with source.open("wb") as file:
        file.truncate(rows * columns * 2)  # holes in a sparse file are read as zeros and take no space on the disk
    arguments = [str(source), str(out), str(budget), json.dumps([rows, columns])]
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(MEMORY), *arguments], capture_output=True, text=True, check=True
    )
    before, after = map(int, result.stdout.split())
    size = (out / "model.onnx.data").stat().st_size
    assert size > 700e6
    assert after - before < 1.15 * budget + (8 << 20)
    if budget < 64 << 20:
        assert (after - before) / size < 0.06


class Big(Quantize):
    """Needs more than half of the budget for any row, and records how many run at the same time."""

    def produce(self, start, stop, files):
        with LOCK:
            IN_WORK.append(1)
            MOST.append(len(IN_WORK))
        time.sleep(0.005)
        with LOCK:
            IN_WORK.pop()
        return super().produce(start, stop, files)

    def working_bytes(self, rows):
        return 11_000


LOCK, IN_WORK, MOST = threading.Lock(), [], []


def test_chunks_that_do_not_fit_into_the_budget_together_run_one_after_another(tiny, out, make_package):
    MOST.clear()
    weights = {f"w{i}": Produced(Big(Array(matrix(9, 9, seed=i))), 0) for i in range(12)}
    write_package(make_package(weights), out, tiny)
    assert len(MOST) >= 12
    assert max(MOST) == 1


class Huge(Quantize):
    """Needs more than the budget in one step, and records the memory that all threads keep meanwhile."""

    def produce(self, start, stop, files):
        time.sleep(0.05)  # time for the other threads to start waiting
        KEPT.append(sum(len(arena.memory) for arena in ARENAS))
        return super().produce(start, stop, files)

    def working_bytes(self, rows):
        return 1_000_000


ARENAS, KEPT = [], []


def test_before_a_chunk_larger_than_the_budget_the_other_threads_free_their_memory(
    tiny, out, make_package, monkeypatch
):
    class Noted(files._Arena):
        def __init__(self):
            super().__init__()
            ARENAS.append(self)

    monkeypatch.setattr(files, "_Arena", Noted)
    ARENAS.clear()
    KEPT.clear()
    copies = {
        f"w{i}": ExternalTensor(path, FLOAT, (300, 50), 0)
        for i, path in enumerate(write_zeros(out.parent / f"{i}.bin", 60_000) for i in range(20))
    }
    huge = Huge(Array(matrix(9, 9)))
    write_package(make_package({**copies, "huge": Produced(huge, 0)}), out, tiny)
    assert len(ARENAS) == tiny.threads
    assert (
        min(KEPT) <= tiny.memory_budget // tiny.threads
    )  # min, because a thread may start late at the first such chunk


def write_zeros(path: Path, nbytes: int) -> Path:
    path.write_bytes(b"\0" * nbytes)
    return path


# Stopping


def test_nan_in_a_weight_stops_writing_with_an_error_that_names_the_tensor(
    tiny, out, tmp_path, write_safetensors, make_package
):
    bad = matrix(300, 50)
    bad[250, 3] = np.nan
    tensors = read_header(write_safetensors(tmp_path / "a.safetensors", {"good": matrix(300, 50), "bad": bad}))
    for make in (lambda t: t, Transpose, lambda t: Cast(t, BFLOAT16), lambda t: Produced(Quantize(t), 0)):
        folder = out / str(len(list(out.iterdir())))
        folder.mkdir()
        package = make_package({"x": make(tensors["good"]), "y": make(tensors["bad"])})
        with pytest.raises(ModelError, match=r"'bad' holds NaN, first at \[250, 3\]"):
            write_package(package, folder, tiny)


@pytest.mark.parametrize(
    "make",
    [lambda t: Cast(t, FLOAT16), lambda t: Transpose(Cast(t, FLOAT16)), lambda t: Cast(Transpose(t), FLOAT16),
     lambda t: Concat((Cast(t, FLOAT16),) * 2), lambda t: Cast(Reshape(t, (-1,)), FLOAT16)],
)  # fmt: skip
def test_a_weight_too_large_for_float16_stops_writing_with_an_error_that_names_the_tensor(
    make, tiny, out, tmp_path, write_safetensors, make_package
):
    large = matrix(300, 50, ml_dtypes.bfloat16)
    large[250, 3] = 65520.0  # the smallest value that rounds to Inf
    tensors = read_header(write_safetensors(tmp_path / "a.safetensors", {"large": large}))
    with pytest.raises(ModelError, match=r"'large' holds 65536; the largest float16 is 65504"):
        write_package(make_package({"x": make(tensors["large"])}), out, tiny)


class Narrow(Producer):
    """A producer of types that numpy does not have."""

    source: Expression

    rows = property(lambda self: self.source.shape[0])
    label = "narrow"
    outputs = property(
        lambda self: (
            OutputSpec("int4", self.source.shape, ir.DataType.INT4),
            OutputSpec("float8", self.source.shape, ir.DataType.FLOAT8E4M3FN),
        )
    )

    def produce(self, start, stop, files):
        values = self.source.rows(start, stop, files)
        return values.astype(ml_dtypes.int4), values.astype(ml_dtypes.float8_e4m3fn)

    def working_bytes(self, rows):
        return rows * self.source.shape[1] * 6


def test_a_producer_of_four_and_eight_bit_types_is_written(tiny, out, make_package):
    values = np.random.default_rng(0).integers(-8, 8, (99, 52)).astype(np.float32)
    made = Narrow(Array(values))
    write_package(make_package({"int4": Produced(made, 0), "float8": Produced(made, 1)}), out, tiny)
    loaded = {value.name: expression_of(value) for value in initializers_of(load_package(package_files(out)).component)}
    with Files() as files:
        for name in ("int4", "float8"):
            np.testing.assert_array_equal(loaded[name].value(files).astype(np.float32), values)


def test_the_error_for_a_producer_that_gives_nan_names_it(tiny, out, make_package):
    package = make_package({"scales": Produced(Quantize(Array(np.full((100, 50), np.inf, np.float32))), 1)})
    with pytest.raises(ModelError, match="'quantize w' gives NaN or Inf"):
        write_package(package, out, tiny)


def test_an_exception_on_a_thread_is_raised_once_with_a_note_that_names_the_tensor(tiny, out, make_package):
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError, match="a defect") as caught:
        write_package(make_package({"w": Produced(Quantize(Array(matrix(5000, 50)), 2500), 0)}), out, tiny)
    assert caught.value.__notes__ == ["while writing 'quantize w'"]
    assert threading.active_count() == before


class Slow(Quantize):
    """A slow producer that signals when it has started."""

    def produce(self, start, stop, files):
        BEGUN.set()
        time.sleep(0.02)
        return super().produce(start, stop, files)


BEGUN = threading.Event()


def test_cancelling_stops_writing_at_the_next_chunk(tiny, out, make_package):
    BEGUN.clear()
    package = make_package({"w": Produced(Slow(Array(matrix(100_000, 50))), 0)})
    threading.Thread(target=lambda: (BEGUN.wait(), tiny.cancelled.set())).start()
    with pytest.raises(Cancelled):
        write_package(package, out, tiny)
    assert not any("_work" in str(thread) for thread in threading.enumerate())


# A real signal wakes the main thread where it waits; _thread.interrupt_main() would only be noticed once it goes on.
INTERRUPTED = """
    import signal, sys, threading
    sys.path[:0] = {path!r}
    import numpy as np
    from test_onnx_writer import Array, BEGUN, OnnxPackage, Produced, Slow, initializer, ir, layouts, write_package
    from drupe.api import Context, Target
    from drupe_onnx import Capabilities
    from pathlib import Path

    layouts.CHUNK = 3000
    weight = Produced(Slow(Array(np.ones((1_000_000, 50), np.float32))), 0)
    graph = ir.Graph([], [], nodes=[], initializers=[initializer("w", weight)], opset_imports={{"": 21}}, name="g")
    main = threading.main_thread().ident
    threading.Thread(target=lambda: (BEGUN.wait(), signal.pthread_kill(main, signal.SIGINT)), daemon=True).start()
    target = Target("test", "1", Capabilities(">=1", {{}}, ("float32",)))
    package = OnnxPackage({{"model": ir.Model(graph, ir_version=10)}})
    try:
        write_package(package, Path({out!r}), Context(target, Path(".")))
    except KeyboardInterrupt:
        print("stopped")
"""


@pytest.mark.skipif(os.name == "nt", reason="a thread cannot get a signal")
def test_ctrl_c_stops_the_threads_and_the_process_ends(out):
    script = textwrap.dedent(INTERRUPTED.format(path=[str(Path(__file__).parent), *sys.path], out=str(out)))
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=False)
    assert (result.stdout, result.returncode) == ("stopped\n", 0), result.stderr


# The disk


def test_too_little_disk_space_is_an_error_before_anything_is_written(out, make_context, make_package, monkeypatch):
    Usage = namedtuple("Usage", "total used free")
    monkeypatch.setattr(writers.shutil, "disk_usage", lambda path: Usage(10**9, 10**9 - 1000, 1000))
    with pytest.raises(OutputError, match=r"0\.0 MB free, but the package needs 4\.0 MB"):
        write_package(make_package({"w": Array(matrix(1000, 1000))}), out, make_context())
    assert not list(out.iterdir())


FULL = """
    import resource, signal, sys
    sys.path[:0] = {path!r}
    import numpy as np
    from pathlib import Path
    from drupe.api import Context, OutputError, Target
    from drupe_onnx import Capabilities
    from drupe_onnx import Array, OnnxPackage, initializer, ir, write_package
    from drupe_onnx import writer

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
    if {late}:
        writer._allocate = lambda file, size: None
    weight = initializer("w", Array(np.ones((1000, 1000), np.float32)))
    graph = ir.Graph([], [], nodes=[], initializers=[weight], opset_imports={{"": 21}}, name="g")
    target = Target("test", "1", Capabilities(">=1", {{}}, ("float32",)))
    package = OnnxPackage({{"model": ir.Model(graph, ir_version=10)}})
    try:
        write_package(package, Path({out!r}), Context(target, Path(".")))
    except OutputError as error:
        print(error.what)
"""


@pytest.mark.skipif(os.name == "nt", reason="there is no limit on the size of files")
@pytest.mark.parametrize("late", [False, True], ids=["when space is reserved", "while writing"])
def test_a_failed_write_is_an_output_error(out, late):
    """A limit on the size of files stands for a full disk, because a small file system would need root."""
    script = textwrap.dedent(FULL.format(path=sys.path, out=str(out), late=late))
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=False)
    assert "larger than the disk allows" in result.stdout, result.stderr


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_an_output_error(out, make_context, make_package):
    out.chmod(0o500)
    with pytest.raises(OutputError, match="no permission"):
        write_package(make_package({"w": Array(matrix(1000, 10))}), out, make_context())


# Running the written package


def test_onnxruntime_computes_the_same_as_numpy(out, tmp_path, make_context, write_safetensors):
    runtime = pytest.importorskip("onnxruntime")
    weight, table = matrix(300, 200, ml_dtypes.bfloat16), matrix(500, 200, np.float16, 1)
    tensors = read_header(write_safetensors(tmp_path / "a.safetensors", {"weight": weight, "table": table}))
    W = initializer("weight", Transpose(Cast(tensors["weight"], FLOAT)))
    T = initializer("table", tensors["table"])
    bias = initializer("bias", Array(np.arange(300, dtype=np.float32)))
    tokens = ir.val("tokens", ir.DataType.INT64, ["n"])
    gather = ir.node("Gather", [T, tokens])
    cast = ir.node("Cast", [gather.outputs[0]], {"to": int(FLOAT)})
    product = ir.node("MatMul", [cast.outputs[0], W])
    add = ir.node("Add", [product.outputs[0], bias], outputs=[ir.val("y", FLOAT, ["n", 300])])
    graph = ir.Graph(
        [tokens], add.outputs, nodes=[gather, cast, product, add], initializers=[W, T, bias], opset_imports={"": 21}
    )
    write_package(OnnxPackage({"model": ir.Model(graph, ir_version=10)}), out, make_context())
    ids = np.array([3, 499, 0])
    (result,) = runtime.InferenceSession(out / "model.onnx").run(None, {"tokens": ids})
    expected = table[ids].astype(np.float32) @ weight.astype(np.float32).T + np.arange(300)
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-4)


def test_what_an_earlier_package_has_is_copied_or_linked_and_not_computed_again(
    tiny, tmp_path, write_safetensors, make_package, monkeypatch
):
    tensors = read_header(write_safetensors(tmp_path / "a.safetensors", {"a": matrix(97, 61), "b": matrix(64, 32)}))
    produced = []
    produce = Quantize.produce

    def noted(self: Quantize, start: int, stop: int, files: Files) -> tuple[np.ndarray, ...]:
        produced.append(self.source.name)
        return produce(self, start, stop, files)

    monkeypatch.setattr(Quantize, "produce", noted)
    a, b = (Quantize(tensors[name]) for name in "ab")
    one = {"packed": Produced(a, 0), "scales": Produced(a, 1), "plain": tensors["b"]}
    other = {"first": Produced(b, 0), **one, "more scales": Produced(b, 1)}

    def written(name: str, weights: dict[str, Expression]) -> tuple[Path, dict[str, str], list[str]]:
        produced.clear()
        (tmp_path / name).mkdir()
        digests = write_package(make_package(weights), tmp_path / name, tiny)
        return tmp_path / name, digests, sorted(set(produced))

    alone, alone_digests, _ = written("alone", other)
    (tmp_path / "shared").mkdir()
    with sharing(tmp_path / "shared"):
        first, first_digests, made = written("first", one)
        assert made == ["a"]
        _, digests, made = written("other", other)
        assert made == ["b"] and digests == alone_digests
        again, digests, made = written("again", one)
        assert not made and digests == first_digests
    assert (again / "model.onnx.data").samefile(first / "model.onnx.data")
    assert (tmp_path / "other" / "model.onnx.data").read_bytes() == (alone / "model.onnx.data").read_bytes()
    assert written("later", one)[2] == ["a"]
