"""Models that are there as GGUF files in 16 bits alone: rebuilt as the folder that transformers knows, from which everything else is made as ever.

`choice` tells by names which of a repo's files that is, `architectures` says what the header means in config.json, `layout` what each tensor of the model is in
the file, `vocabulary` makes the tokenizer, `origin` reads licence and base models, and `rebuild` writes the folder. `qa.rebuilt` proves it.
"""
