"""drupe-optimize: the commands that make a package of a model."""
