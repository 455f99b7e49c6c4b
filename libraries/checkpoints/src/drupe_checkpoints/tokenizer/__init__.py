"""A checkpoint's tokenizer as one tokenizer.json, whatever files it is kept in."""
