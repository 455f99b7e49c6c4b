"""The settings of a session on DirectML, as onnxruntime and onnxruntime-genai spell them.

What has values is tried by `tune-session`; the rest is known, and tried where the user names values. Names with dots
are entries of the session's configuration, which both runtimes read.
"""

from __future__ import annotations

from drupe_onnx import SPINNING, SessionSetting

_SWITCH = {True: "1", False: "0"}

SETTINGS = (
    # The processor waits for the GPU in a busy loop: less time between tokens, for one core.
    SessionSetting("gpu_spinning", "ep.dml.enable_cpu_sync_spinning", (True,), default=False, words=_SWITCH),
    SPINNING.trying(False),
    # onnxruntime-genai records the commands of a token once, and replays them; on some drivers the numbers differ then.
    # Plain onnxruntime does not have it in this spelling.
    SessionSetting("graph_capture", "enable_graph_capture", default=True, words=_SWITCH, provider="dml"),
    SessionSetting("gpu_arena", "ep.dml.disable_memory_arena", default=True, words={True: "0", False: "1"}),
    SessionSetting("graph_fusion", "ep.dml.disable_graph_fusion", default=True, words={True: "0", False: "1"}),
    # The driver's own kernels. Only sessions of plain onnxruntime read it.
    SessionSetting(
        "metacommands", "disable_metacommands", default=True, words={True: "false", False: "true"}, provider="dml"
    ),
)
