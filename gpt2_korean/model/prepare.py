"""What is done to a model before it learns: a new vocabulary, or new tokens in its own, and an adapter of LoRA."""

import numpy as np

from gpt2_korean.messages import say
from gpt2_korean.model import lora
from gpt2_korean.model.embeddings import add_rows, replace_vocabulary
from gpt2_korean.text.chat_template import count_turns
from gpt2_korean.text.end_of_text import agree_on_ends


def prepare_model(model, old, new, added, documents, blocks, start, options):
    """The model as it is to be trained: carried over from the tokenizer `old` to `new`, with a new adapter of LoRA.

    added: the ids of tokens that `new` has been given, which the model has no rows for where both are the same.
    """
    if new is not old:
        replace_vocabulary(model, old, new, documents, blocks)
    elif added:
        add_rows(model, new, added)
    agree_on_ends(model, new)
    turns = count_turns(documents)
    if turns.size:
        # It remembers as many exchanges as half of the conversations have: what is longer it hardly knows, and answers
        # badly. See generation/write.py.
        answers = int(np.quantile(turns, 0.5, method="higher")) // 2
        model.config.learnt_answers = max(answers, getattr(model.config, "learnt_answers", 0))
    if options.lora_rank and start.checkpoint is None:
        model = lora.adapt(model, options.lora_rank, options.lora_alpha, train_embeddings=new is not old or bool(added))
    if options.lora_rank:
        say(lora.describe_adapter(model))
    return model
