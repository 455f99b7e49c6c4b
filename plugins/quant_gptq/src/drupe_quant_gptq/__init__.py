"""drupe-quant-gptq: quantizing with calibration: GPTQ block by block, and weights for the search."""
