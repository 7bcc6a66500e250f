"""Texts that a model writes while it is trained or measured, by a seed of their own, so that only the model differs.

The model writes as it stands in memory, by the decoder that generate.py would take: nothing of it or of the run's
random numbers is changed.
"""

import re
from contextlib import contextmanager
from itertools import cycle, islice
from types import SimpleNamespace

import torch
from transformers.trainer_utils import unwrap_peft_model

from gpt2_korean.device import dtype_of
from gpt2_korean.generation.choose_decoder import gpt2_decoder
from gpt2_korean.generation.library_decoder import LibraryDecoder
from gpt2_korean.generation.load import LoadedModel
from gpt2_korean.generation.loop import stream_ids
from gpt2_korean.generation.sampling import Sampling
from gpt2_korean.generation.whole_characters import build_tables
from gpt2_korean.generation.write import LOOK_EVERY, stream_texts
from gpt2_korean.messages import warn_of_failure
from gpt2_korean.model.gpt2 import is_supported
from gpt2_korean.model.lora import merged_weights
from gpt2_korean.text.chat_prompt import as_turns, find_chat
from gpt2_korean.text.prompts import SAMPLE_PROMPTS, SAMPLE_QUESTIONS

LENGTH = 64
SAMPLING = Sampling(temperature=0.7, top_k=50, top_p=0.95, repetition_penalty=1.2)  # of README's generate.py
SEED = 42
MARKUP = re.compile(r"[!-/:-@\[-`{-~]")
BYTES = 4  # of the longest character; no token of a byte-level vocabulary is shorter than one


@contextmanager
def writing(model, tokenizer, dtype=torch.float32):
    """Yield a LoadedModel over a model of transformers, or the base of an adapted one with its adapter.

    dtype: what the run computes in.
    """
    eos_token_id, chat = tokenizer.eos_token_id, find_chat(tokenizer, tokenizer.eos_token_id)
    tokenizer = getattr(tokenizer, "backend_tokenizer", None) or tokenizer
    was_training, device = model.training, next(model.parameters()).device
    model.eval()
    try:
        with _own_noise(device):
            decoder = _fastest_decoder(model, device, dtype)
            utf8 = build_tables(tokenizer, decoder.vocab_size)
            yield LoadedModel(decoder, tokenizer, eos_token_id, utf8 and utf8.to(device), chat)
    finally:
        model.train(was_training)


def _fastest_decoder(model, device, dtype):
    config = model.config.to_dict()
    if is_supported(config):
        try:
            # No recorded steps: the threads that load blocks go on meanwhile.
            return gpt2_decoder(config, merged_weights(model), device, dtype, captures=False)
        except torch.OutOfMemoryError:  # no room for a second copy of the weights
            pass
    return LibraryDecoder(model)  # in float32 or under its own autocast


def own_prompts(tokenizer):
    """What every model continues as it learns, and a chat model answers."""
    return SAMPLE_PROMPTS if tokenizer.chat_template is None else SAMPLE_QUESTIONS


def write_samples(trainer, prompts):
    """What the model of a KoreanTrainer writes to `prompts`, see continue_prompts; None where it cannot, told once."""
    # Sharded weights would need all ranks to write.
    if not trainer.can_write or trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        return None
    try:
        model, dtype = unwrap_peft_model(trainer.model), dtype_of(trainer.args.bf16, trainer.args.fp16)
        with writing(model, trainer.processing_class, dtype) as loaded:
            return continue_prompts(loaded, prompts)
    except Exception as error:  # hours of training are worth more than a look at them
        trainer.can_write = False
        warn_of_failure(error, f"학습 중인 모델로 글을 써 보일 수 없습니다 ({type(error).__name__}: {error}).")
        return None


def continue_prompts(loaded, prompts):
    """What the model writes after each of `prompts`, a list of str in whole characters; a chat model answers them."""
    if loaded.chat is not None:
        prompts = [as_turns(None, [], prompt) for prompt in prompts]
    texts = [""] * len(prompts)
    plain = {"stop": None, "dry_sequence_breaker": (), "end_at_sentence": False, "token_healing": None}
    settings = SimpleNamespace(**vars(SAMPLING), length=LENGTH, **plain)
    for _, new in stream_texts(loaded, prompts, settings, tell=lambda _: None):
        texts = [text + more for text, more in zip(texts, new, strict=True)]
    return texts


def as_markdown(prompt, text):
    """A prompt, bold, and its continuation for TensorBoard's text panel: nothing in them is taken for markup."""
    prompt, text = (MARKUP.sub(lambda sign: f"&#{ord(sign[0])};", part) for part in (prompt, text))
    return f"<strong>{prompt}</strong>{text}".replace("\n", "<br>")


def write_stretches(loaded, count, length):
    """Yield, every few steps, `count` texts as far as they have come, at last all `length` characters long.

    They are what the model writes by itself, document after document as it has read them, a line end between
    two; from its own distribution, since top-k, top-p and temperature do not mean the same to two vocabularies.
    """
    starts = [[loaded.eos_token_id]] * count
    rows = [[] for _ in starts]
    for chunk in stream_ids(loaded.decoder, starts, BYTES * length, Sampling(), None, loaded.utf8, LOOK_EVERY):
        for row, new in zip(rows, chunk, strict=True):
            row += new
        texts = [_join_documents(row, loaded)[:length] for row in rows]
        yield texts
        if min(map(len, texts)) == length:
            return


def write_answers(loaded, conversations, count, length):
    """As write_stretches, of a chat model: its answers where people's last ones stand in `conversations`."""
    asked, texts = cycle(conversations), [""] * count
    while min(map(len, texts)) < length:
        starts = [loaded.chat.encode(turns[:-1]) for turns in islice(asked, count)]
        rows = [[] for _ in starts]
        for chunk in stream_ids(
            loaded.decoder, starts, BYTES * length, Sampling(), loaded.chat.end, loaded.utf8, LOOK_EVERY
        ):
            for row, new in zip(rows, chunk, strict=True):
                row += new
            yield texts
        answers = [loaded.tokenizer.decode(row, skip_special_tokens=True).strip() for row in rows]
        texts = [f"{text}{answer}\n"[:length] for text, answer in zip(texts, answers, strict=True)]
    yield texts


def _join_documents(ids, loaded):
    documents = [[]]
    for index in ids:
        if index == loaded.eos_token_id:
            documents.append([])
        else:
            documents[-1].append(index)
    text = "\n".join(loaded.tokenizer.decode(document, skip_special_tokens=True) for document in documents)
    return text.rstrip("\ufffd")  # a character under way


@contextmanager
def _own_noise(device):
    """Random numbers of a fixed seed within; outside they go on as if nothing had been drawn."""
    devices = [device] if device.type != "cpu" else []  # whose own are kept in any case
    with torch.random.fork_rng(devices, device_type=device.type):
        torch.manual_seed(SEED)
        yield
