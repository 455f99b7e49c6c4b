"""drupe-quant-rtn: weight-only block quantization without calibration data."""
