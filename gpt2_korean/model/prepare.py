"""What is done to a model before it learns: a new vocabulary, or new tokens in its own, and an adapter of LoRA."""

import numpy as np
from torch.nn import Dropout

from gpt2_korean.messages import say
from gpt2_korean.model import lora
from gpt2_korean.model.embeddings import add_rows, replace_vocabulary
from gpt2_korean.model.gpt2 import NO_DROPOUT, check_dropout
from gpt2_korean.model.tokenizer import agree_on_ends
from gpt2_korean.text.chat_template import count_turns


def prepare_model(model, old, new, added, documents, blocks, start, options, dropout=None):
    """The model as it is to be trained: carried over from the tokenizer `old` to `new`, with a new adapter of LoRA.

    added: the ids of tokens that `new` has been given, which the model has no rows for where both are the same.
    dropout: see set_dropout, None for the model's own.
    """
    if dropout is not None:
        set_dropout(model, dropout)
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


def set_dropout(model, rate):
    """Have a GPT-2 drop this share of its embeddings, of its attention's weights and of what its layers add.

    Its config says so too, and goes with what is saved. Raises UsageError for another model.
    """
    check_dropout(rate, model.config.to_dict())
    for name in NO_DROPOUT:
        setattr(model.config, name, rate)
    for name, module in model.named_modules():
        if isinstance(module, Dropout) and ".lora_" not in name:
            module.p = rate
