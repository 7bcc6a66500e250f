"""What is done to a model before it learns: a new vocabulary, an adapter of LoRA."""

from gpt2_korean.messages import say
from gpt2_korean.model import lora
from gpt2_korean.model.embeddings import replace_vocabulary


def prepare_model(model, old, new, documents, blocks, start, options):
    """The model as it is to be trained: carried over from the tokenizer `old` to `new`, with a new adapter of LoRA."""
    if new is not old:
        replace_vocabulary(model, old, new, documents, blocks)
    if options.lora_rank and start.checkpoint is None:
        model = lora.adapt(model, options.lora_rank, options.lora_alpha, train_embeddings=new is not old)
    if options.lora_rank:
        say(lora.describe_adapter(model))
    return model
