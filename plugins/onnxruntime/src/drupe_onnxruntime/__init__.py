"""onnxruntime and onnxruntime-genai for Drupe: opening models on a target, and packaging decoders."""
