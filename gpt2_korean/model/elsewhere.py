"""What a saved model says to other programs: transformers of other versions, converters. Works on files alone."""

import json
from pathlib import Path

from gpt2_korean.checkpoints.complete import read_json
from gpt2_korean.model.gpt2 import is_gpt2
from gpt2_korean.text.vocabulary import unlike_gpt2

CONFIG, TOKENIZER, TOKENIZER_CONFIG = "config.json", "tokenizer.json", "tokenizer_config.json"


def tell_others(folder, use_cache):
    """Have the files of a model or an adapter that was just saved in `folder` say what other programs ask of them.

    use_cache: the value in the model's config before Trainer, which saves False: other programs would then read a text
    anew at each of its tokens.
    """
    folder = Path(folder)
    config, settings = read_json(folder / CONFIG), read_json(folder / TOKENIZER_CONFIG)
    if config is not None:
        if "use_cache" in config:
            config["use_cache"] = is_gpt2(config) or use_cache
        if is_gpt2(config):
            config.setdefault("n_ctx", config["n_positions"])  # its older name, which llama.cpp's converter goes by
        _write(folder / CONFIG, config)
    if settings is not None and settings.get("tokenizer_class") == "TokenizersBackend":  # known to transformers 5 alone
        settings["tokenizer_class"] = "PreTrainedTokenizerFast"
        ends = [settings.get(name) for name in ("bos_token", "eos_token")]
        if all(ends) and _reads_as_gpt2s_class(read_json(folder / TOKENIZER)):
            # Every byte has a token and none is unknown, but without an unk_token GPT-2's class would add one.
            settings |= {"tokenizer_class": "GPT2Tokenizer", "unk_token": settings.get("unk_token") or ends[1]}
        _write(folder / TOKENIZER_CONFIG, settings)


def _reads_as_gpt2s_class(content):
    """Whether the `content` of a tokenizer.json does what GPT-2's class makes of its words and merges alone."""
    decoded = (content["decoder"] or {}).get("type") == "ByteLevel"
    return decoded and unlike_gpt2(content) is None and not any(map(content["model"].get, ("unk_token", "fuse_unk")))


def _write(path, content):
    path.write_text(json.dumps(content, ensure_ascii=False, indent=2, sort_keys=True) + "\n", "utf-8")
