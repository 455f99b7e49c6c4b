"""drupe-finetune: trains an adapter for a checkpoint, or the checkpoint itself, on a data set."""
