"""Expressions: frozen data that says where the bytes of a weight are and what is done to them.

Import the names from `drupe_onnx`: each module here is loaded when one of its names is first used.
"""
