"""Chat templates for onnxruntime-genai's own template engine: compared with jinja2, and rewritten where they differ."""
