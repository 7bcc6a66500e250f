"""The tokenizer of a model, its special tokens in agreement with the model's config: with torch, or without."""

import json
from functools import partial
from pathlib import Path

from gpt2_korean.messages import UserError, particle
from gpt2_korean.model.files import told_by_name, without_end, without_tokenizer
from gpt2_korean.model.gpt2 import SCRATCH_SIZES, context_length
from gpt2_korean.model.hub import cached_path
from gpt2_korean.text.chat_prompt import find_answer_end
from gpt2_korean.text.chat_template import keep_one_template, prepare_tokenizer
from gpt2_korean.text.end_of_text import settle_ends
from gpt2_korean.text.folders import find_path
from gpt2_korean.text.vocabulary import choose_tokenizer, fitting_size, learn_tokenizer


def find_tokenizer(start, documents, options):
    """`(tokenizer, context, whether it is new to the model)` that training from `start` on `documents` has, without
    torch and the Hub.

    options: ModelOptions. The first two are None where the files at hand do not tell: a model that is still to be
    fetched, an adapter, or one without tokenizer.json. Raises UserError as training does.
    """
    from transformers import PreTrainedTokenizerFast

    is_new = start.from_scratch
    if is_new:
        tokenizer = learn_scratch_tokenizer(start.source, documents, options.vocab_size)
        context = SCRATCH_SIZES[start.source]["n_positions"]
    else:
        with told_by_name("--model_type", start.source):
            tokenizer, context = _read_tokenizer(start.source)
    if tokenizer is None:
        return None, None, options.tokenizer not in (None, "original")
    if not start.keeps_vocabulary:
        other = find_path(options.tokenizer or "korean")
        if other.is_dir() and not (other / "tokenizer.json").exists():
            return None, None, True
        own, tokenizer = tokenizer, choose_tokenizer(tokenizer, documents, options, PreTrainedTokenizerFast)
        is_new = tokenizer is not own
    prepare_tokenizer(tokenizer, documents)
    return tokenizer, context, is_new


def learn_scratch_tokenizer(size, documents, vocab_size=None):
    """The tokenizer of a built-in size, learnt from `documents`."""
    shape = SCRATCH_SIZES[size]
    return learn_tokenizer(documents, vocab_size or fitting_size(documents, shape["vocab_size"]), shape["n_positions"])


def _read_tokenizer(name):
    """`(tokenizer, context)` of a model folder or a hub id that is in the cache, else None for both."""
    from transformers import PreTrainedTokenizerFast

    config, tokenizer = (_file(name, file) for file in ("config.json", "tokenizer.json"))
    config = config and json.loads(config.read_text("utf-8"))
    if not tokenizer or "vocab_size" not in (config or {}):
        return None, None
    context = context_length(config)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(name, local_files_only=True)
    end = config.get("eos_token_id")
    return _settle(tokenizer, name, config["vocab_size"], end, context, "--model_type"), context


def _file(name, file):
    """The Path of a file of a folder or of the Hub's cache, None where there is none."""
    path = Path(name) / file
    if Path(name).is_dir():
        return path if path.exists() else None
    return cached_path(name, file)


def load_tokenizer(name, config, flag, local_files_only=False, trust_remote_code=False):
    """The tokenizer of `name` with an end-of-text token inside the model's vocabulary.

    Raises UserError that names `flag`.

    transformers 5 rebuilds the tokenizer of any GPT-2 config by GPT-2's own rules, whatever its
    tokenizer.json says; skt/kogpt2-base-v2, whose words are split otherwise, would come out empty, the
    syllables that another composes (NFC) would come apart, and one that ends texts with </s> would end them
    with a new <|endoftext|>. Where the two differ, the file is right. Nor does it look for the words of
    kykim/gpt3-kor-small_based_on_gpt2, which are BERT's.
    """
    from transformers import AutoTokenizer, BertTokenizer, PreTrainedTokenizerFast
    from transformers.utils import cached_file

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            name, local_files_only=local_files_only, trust_remote_code=trust_remote_code
        )
    except ValueError as error:  # files that are missing, of several that belong together
        if isinstance(error, json.JSONDecodeError) or "trust_remote_code" in str(error):
            raise
        raise without_tokenizer(flag, name) from None
    local = {"local_files_only": local_files_only}
    find = partial(cached_file, name, _raise_exceptions_for_missing_entries=False, **local)
    file = find("tokenizer.json")
    if file is None and len(tokenizer) <= 1 and find("vocab.txt") is not None:
        tokenizer = BertTokenizer.from_pretrained(name, **local)
    if file is not None and getattr(tokenizer, "backend_tokenizer", None) is not None:
        written, loaded = (
            json.loads(text) for text in (Path(file).read_text("utf-8"), tokenizer.backend_tokenizer.to_str())
        )
        cut_alike = all(written.get(part) == loaded[part] for part in ("normalizer", "pre_tokenizer"))
        if not cut_alike or _added(loaded) - _added(written):
            tokenizer = PreTrainedTokenizerFast.from_pretrained(name, **local)
    return _settle(tokenizer, name, config.vocab_size, config.eos_token_id, context_length(config), flag)


def _added(content):
    """The names of the tokens that the `content` of a tokenizer.json has besides the words it learnt."""
    return {token["content"] for token in content.get("added_tokens") or ()}


def _settle(tokenizer, name, rows, end, context, flag):
    """The tokenizer with what a config says: `rows` of embeddings, an `end` of text and the longest `context`."""
    keep_one_template(tokenizer)
    check_tokens(tokenizer, rows, flag, name)
    if not settle_ends(tokenizer, end, rows):
        raise without_end(flag, name)
    tokenizer.model_max_length = min(tokenizer.model_max_length, context or tokenizer.model_max_length)
    return tokenizer


def agree_on_ends(model, tokenizer):
    """Give model config and generation config the tokenizer's end and padding ids, so that all three agree.

    Where an answer ends in another token than a text, transformers' generate() stops there too, which would go on with
    the user's next words.
    """
    begin, end, answer_end = tokenizer.bos_token_id, tokenizer.eos_token_id, find_answer_end(tokenizer)
    if begin is None or begin >= model.config.vocab_size:
        begin = end
    for config in (model.config, model.generation_config):
        config.bos_token_id, config.eos_token_id, config.pad_token_id = begin, end, tokenizer.pad_token_id
    if answer_end not in (None, end):
        model.generation_config.eos_token_id = [end, answer_end]


def check_tokens(tokenizer, rows, flag, source):
    """Raise UserError for a tokenizer of `source` without words, or with a token that has none of `rows` embeddings.

    tokenizer: of tokenizers or of transformers, which makes one of nothing but an end of text where there is no file.
    """
    backend, vocabulary = getattr(tokenizer, "backend_tokenizer", None) or tokenizer, tokenizer.get_vocab()
    decoder = getattr(backend, "get_added_tokens_decoder", None)
    added = decoder() if decoder else backend.added_tokens_decoder
    if not set(vocabulary.values()) - set(added):
        raise without_tokenizer(flag, source)
    largest = max(vocabulary.values())
    if largest >= rows:
        longer = particle(f"model.resize_token_embeddings({largest + 1})", "으로/로")
        raise UserError(
            f"{flag}={source}: 토크나이저의 토큰({largest + 1:,}개)이 모델의 임베딩({rows:,}줄)보다 많습니다. 모델의 "
            f"원래 토크나이저를 두거나, {longer} 늘려 저장하세요."
        )
