"""The families of decoders: one file each, called by its `model_type`, with a function of that name."""
