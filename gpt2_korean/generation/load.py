"""A saved model → what writing needs of it: a decoder, the tokenizer, the end of a text.

A GPT-2 in a folder is read by safetensors and tokenizers alone: importing transformers and building its
model would take longer than reading the weights.
"""

import secrets
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from tokenizers import Tokenizer

from gpt2_korean.device import choose_device, choose_dtype, describe_device, load_ipex, name_dtype
from gpt2_korean.generation.choose_decoder import gpt2_decoder, has_openvino, quantized_decoder
from gpt2_korean.generation.kept import FLAG
from gpt2_korean.generation.library_decoder import LibraryDecoder
from gpt2_korean.generation.weights import read_weights
from gpt2_korean.generation.whole_characters import build_tables
from gpt2_korean.messages import UsageError, say
from gpt2_korean.model.files import damaged, read_model_json, still_there, told_by_name, weight_files, without_end
from gpt2_korean.model.gpt2 import is_supported
from gpt2_korean.model.hub import find_cached
from gpt2_korean.model.load import load_pretrained
from gpt2_korean.model.quiet import show_downloads_only
from gpt2_korean.model.tokenizer import check_tokens, load_tokenizer
from gpt2_korean.text.chat_prompt import find_chat
from gpt2_korean.text.chat_template import CHAT_TEMPLATE
from gpt2_korean.text.end_of_text import find_end


@dataclass(frozen=True)
class LoadedModel:
    """decoder: of decoder.py. tokenizer: of tokenizers, or of transformers where it has none of those.
    utf8: the vocabulary's Utf8Tables, None where broken characters are allowed or cannot be told.
    chat: the Chat of a model that holds conversations, None of one that continues texts."""

    decoder: object
    tokenizer: object
    eos_token_id: int
    utf8: object
    chat: object = None


def load(source, options, reading=None, tells_seed=True):
    """`(LoadedModel, the options settled)` of a model folder or a hub id; says what was chosen.

    reading: kept.begin_reading's. tells_seed: whether a seed that nobody gave is said.
    options: the LoadOptions of the command line. Settled, they name the device type, the data type and the seed
        that was set, whatever they left open. Raises what read_model raises, and UsageError for a device that is
        not here.
    """
    device = choose_device(options.device)
    dtype = name_dtype(choose_dtype(device, options.dtype, options.quantize))
    seed = secrets.randbits(32) if options.seed is None else options.seed
    settled = replace(options, model_name_or_path=str(source), device=device.type, dtype=dtype, seed=seed)
    with still_there(FLAG, source):
        model = read_model(source, settled, reading)
    torch.manual_seed(seed)
    seed_words = f" · 시드: {seed}" if tells_seed or options.seed is not None else ""
    say(f"장치: {describe_device(device)} · 자료형: {dtype}{seed_words}")
    if model.chat is not None:
        say("대화 양식(chat_template)이 있는 모델이라 대화로 답합니다. 글을 이어 쓰게 하려면 --raw를 더하세요.")
    return model, settled


def read_model(source, options, reading=None):
    """The LoadedModel of a model folder or a hub id; options: LoadOptions that name a device type and a data type.

    reading: kept.begin_reading's. Raises UserError where the model cannot be had, UsageError where OpenVINO is asked
    for and cannot write by it.
    """
    device, dtype, quantize = torch.device(options.device), getattr(torch, options.dtype), options.quantize
    asked = f"--quantize={quantize}" if quantize else "--engine=openvino" if options.engine == "openvino" else None
    if asked and device.type != "cpu":
        raise UsageError(f"{asked}: CPU에서만 쓸 수 있습니다. --device=cpu를 더하세요.")
    openvino = (asked or (options.engine == "auto" and device.type == "cpu")) and has_openvino(asked)
    ipex, notice = (None, None) if openvino else load_ipex(device)
    if notice:
        say(notice)
    folder, hub_answers = (Path(source), None) if Path(source).is_dir() else find_cached(source, FLAG)
    config = None if ipex is not None or folder is None else _read_config(folder)
    if config is not None:
        with ThreadPoolExecutor(1) as thread:  # beside the weights, which wait for memory and device
            words = thread.submit(_read_words, folder, config, options)
            if quantize:
                decoder = quantized_decoder(folder, config, dtype, quantize, reading)
            else:
                decoder = gpt2_decoder(config, read_weights(folder, config), device, dtype, openvino=openvino)
        tokenizer, eos_token_id, utf8 = words.result()
    else:
        show_downloads_only()
        model, tokenizer = load_pretrained(source, dtype, FLAG, options.trust_remote_code, hub_answers)
        config = model.config.to_dict()
        if is_supported(config) and ipex is None and not hasattr(model, "peft_config"):
            decoder = gpt2_decoder(config, model.state_dict(), device, dtype, openvino=openvino, quantize=quantize)
        elif asked:
            raise UsageError(f"{asked}: GPT-2에만 쓸 수 있는데 이 모델은 다릅니다. 이 플래그를 빼세요.")
        else:
            model = model.to(device).eval()
            decoder = LibraryDecoder(model if ipex is None else ipex.optimize(model, dtype=dtype, inplace=True))
        eos_token_id = tokenizer.eos_token_id
        utf8 = None if options.allow_invalid_utf8 else build_tables(tokenizer, decoder.vocab_size)
    chat = None if options.raw else find_chat(tokenizer, eos_token_id, config.get("learnt_answers"))
    backend = getattr(tokenizer, "backend_tokenizer", None) or tokenizer
    return LoadedModel(decoder, backend, eos_token_id, utf8 and utf8.to(device), chat)


def _has_template_of_others(folder):
    """Whether a model's chat template is another than ours, which transformers alone can render."""
    file = folder / "chat_template.jinja"
    if file.exists():
        return file.read_text("utf-8", "replace") != CHAT_TEMPLATE
    config = read_model_json(FLAG, folder / "tokenizer_config.json") or {}
    return config.get("chat_template") not in (None, CHAT_TEMPLATE)


def _read_config(folder):
    """The config of a GPT-2's folder, None of anything else."""
    config = read_model_json(FLAG, folder / "config.json")  # None of an adapter
    if not config or not is_supported(config) or not (folder / "tokenizer.json").exists():
        return None
    return config if weight_files(folder, FLAG) else None


def _read_words(folder, config, options):
    """`(tokenizer, eos_token_id, utf8)` of a GPT-2's folder, by tokenizers alone but for templates of others."""
    if options.raw or not _has_template_of_others(folder):
        tokenizer, eos_token_id = _read_tokenizer(folder, config)
    else:
        from transformers import GPT2Config

        with told_by_name(FLAG, folder):
            tokenizer = load_tokenizer(folder, GPT2Config.from_dict(config), FLAG)
        eos_token_id = tokenizer.eos_token_id
    utf8 = None if options.allow_invalid_utf8 else build_tables(tokenizer, config["vocab_size"])
    return tokenizer, eos_token_id, utf8


def _read_tokenizer(folder, config):
    """`(tokenizer, eos_token_id)`, by tokenizers alone."""
    try:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # tokenizers raises nothing more specific
        raise damaged(FLAG, folder / "tokenizer.json", error) from None
    check_tokens(tokenizer, config["vocab_size"], FLAG, folder)
    token = (read_model_json(FLAG, folder / "tokenizer_config.json") or {}).get("eos_token")
    token = token.get("content") if isinstance(token, dict) else token
    if not isinstance(token, str | None):
        raise damaged(FLAG, folder / "tokenizer_config.json", f"eos_token={token!r}")
    own = tokenizer.token_to_id(token) if token else None
    eos = find_end(own, config.get("eos_token_id"), config["vocab_size"])
    if eos is None:
        raise without_end(FLAG, folder)
    return tokenizer, eos
