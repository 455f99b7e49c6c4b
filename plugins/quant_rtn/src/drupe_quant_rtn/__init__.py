"""drupe-quant-rtn: weight-only block quantization, data-free."""
