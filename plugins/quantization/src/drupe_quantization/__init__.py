"""drupe-quantization: chooses the passes that quantize weights, by the quality that the user asks for."""
