"""drupe-equalize: models rewritten into equal ones that quantize better."""
