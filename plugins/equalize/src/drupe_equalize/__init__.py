"""drupe-equalize: passes that rewrite a model into an equivalent one that loses less when it is quantized."""
