"""drupe-recover: trains the scales and norms of a quantized model, block by block, to compute what its source does."""
