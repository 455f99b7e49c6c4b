"""drupe-quant-gptq: quantizing with calibration: GPTQ block by block, and channel weights for the error search."""
