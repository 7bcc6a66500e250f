"""A name → a model and its tokenizer, and what is done to a model as a whole: a new vocabulary, LoRA."""
