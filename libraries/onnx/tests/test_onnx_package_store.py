"""Storing a model and restoring it, also in another process."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from drupe.api import Model, ModelError
from drupe_files import folder_bytes
from drupe_onnx import ExternalTensor, OnnxKind, initializer, ir

KIND = OnnxKind()
RESTORE = """
    import sys
    from pathlib import Path
    from drupe.api import Context, Model, Target
    from drupe_onnx import Capabilities
    from drupe_onnx import OnnxKind

    model = OnnxKind().restore(Model("onnx", Path(sys.argv[1])))
    target = Target("test", "1", Capabilities(">=1", {}, ("float32",)))
    OnnxKind().save(model, Path(sys.argv[2]), Context(target, Path(sys.argv[2])))
"""


def test_another_process_restores_a_stored_model(model, checkpoint, out, tmp_path, make_context):
    context = make_context()
    made = np.random.default_rng(1).standard_normal((50, 50)).astype(np.float32)
    (context.scratch / "made.bin").write_bytes(made.tobytes())
    graph = model.payload.component.graph
    graph.register_initializer(
        initializer("made", ExternalTensor(context.scratch / "made.bin", ir.DataType.FLOAT, (50, 50), 0))
    )
    KIND.save(model, out, context)
    kept, moved, restored = tmp_path / "kept", tmp_path / "moved", tmp_path / "restored"
    kept.mkdir()
    restored.mkdir()
    KIND.store(model, kept, context)
    kept.rename(moved)
    shutil.rmtree(context.scratch)
    assert folder_bytes(moved) < checkpoint["weight"].nbytes + made.nbytes + 40 * 96 * 4 + 20_000
    script = textwrap.dedent(RESTORE)
    subprocess.run([sys.executable, "-c", script, str(moved), str(restored)], check=True)
    for path in out.rglob("*"):
        if path.is_file():
            assert (restored / path.relative_to(out)).read_bytes() == path.read_bytes(), path.name


def test_a_source_that_changed_is_not_restored(model, checkpoint, tmp_path, make_context):
    kept = tmp_path / "kept"
    kept.mkdir()
    KIND.store(model, kept, make_context())
    os.utime(checkpoint["weight"].path, ns=(1, 1))
    with pytest.raises(ModelError, match=r"'model.safetensors' has changed"):
        KIND.restore(Model("onnx", kept))


def test_a_source_whose_content_is_known_is_restored_wherever_it_lies(model, checkpoint, out, tmp_path, make_context):
    kept, source = tmp_path / "kept", checkpoint["weight"].path.parent
    kept.mkdir()
    KIND.store(model, kept, make_context())
    KIND.save(model, out, make_context())
    os.utime(checkpoint["weight"].path, ns=(1, 1))
    assert KIND.restore(Model("onnx", kept), (source, source)).payload is not None
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    checkpoint["weight"].path.rename(elsewhere / checkpoint["weight"].path.name)
    restored = KIND.restore(Model("onnx", kept), (source, elsewhere))
    again = tmp_path / "again"
    again.mkdir()
    KIND.save(restored, again, make_context())
    assert folder_bytes(again) == folder_bytes(out)
    assert (again / "model.onnx.data").read_bytes() == (out / "model.onnx.data").read_bytes()
    with pytest.raises(ModelError, match="does not exist any more"):
        KIND.restore(Model("onnx", kept), (tmp_path / "another", elsewhere))
    path = elsewhere / checkpoint["weight"].path.name
    path.write_bytes(path.read_bytes() + b"0")
    with pytest.raises(ModelError, match=r"'model.safetensors' has changed"):
        KIND.restore(Model("onnx", kept), (source, elsewhere))
