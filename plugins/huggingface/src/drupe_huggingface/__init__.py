"""drupe-huggingface: the model kind `hf`, and finding models of this kind by folder or hub id."""
