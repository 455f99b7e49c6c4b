"""What plugins implement: each module holds one contract, whose docstring is a complete example."""
