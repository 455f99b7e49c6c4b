"""A tokenizer in the form that onnxruntime-genai reads as it is meant.

Its tokenizer (onnxruntime-extensions) takes some parts of tokenizer.json in its own way. In onnxruntime-genai 0.18:

- merges as texts lose their carriage returns, and the first one must not begin with "#": pairs are read as they are;
- of the pre-tokenizers only `Split` is read, as isolating, and only some regular expressions are known in full Unicode.
  Without one, the expression of GPT-2 holds, or for word marks (U+2581) and the class LlamaTokenizer that of Llama 3;
- a tokenizer with word marks gets one before each stretch of text if its decoder strips a space, and none otherwise;
- the post-processor is not read but guessed from the names of the special tokens;
- `lstrip` and `single_word` of added tokens are ignored, and so are normalizers.

Where a tokenizer can be written so that it is read as meant, or nearer to that, it is written into a file of its own,
and tokenizer_module.json, which only onnxruntime-genai reads, names it. tokenizer.json stays as it is for everybody.
"""
