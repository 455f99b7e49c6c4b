"""onnxruntime-genai: the runtime that opens packages, and the pass that makes them."""
