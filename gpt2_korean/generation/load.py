"""A saved model → what writing needs of it: a decoder, the tokenizer, the end of a text.

A GPT-2 in a folder is read by safetensors and tokenizers alone: importing transformers and building its
model would take longer than reading the weights.
"""

import secrets
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

import torch

from gpt2_korean.device import (
    choose_device,
    choose_dtype,
    computes_bfloat16,
    describe_device,
    has_graphs,
    load_ipex,
    name_dtype,
)
from gpt2_korean.generation.decoder import GPT2Decoder
from gpt2_korean.generation.kept import FLAG, keep, read_kept
from gpt2_korean.generation.library_decoder import LibraryDecoder
from gpt2_korean.generation.weights import named, quantize_weights, read_weights
from gpt2_korean.generation.whole_characters import build_tables
from gpt2_korean.messages import UsageError, say, warn_of_failure
from gpt2_korean.model.files import damaged, read_model_json, still_there, weight_files, without_end
from gpt2_korean.model.gpt2 import is_supported, kernel_sizes
from gpt2_korean.model.load import find_cached, load_pretrained, show_downloads_only
from gpt2_korean.model.tokenizer import check_tokens, load_tokenizer
from gpt2_korean.speed import linear
from gpt2_korean.text.chat_prompt import find_chat
from gpt2_korean.text.chat_template import CHAT_TEMPLATE
from gpt2_korean.text.end_of_text import find_end

OPENVINO = "2026.4"  # whose attention openvino_graph.py knows how to ask
TOLD_OF = set()  # the failures of the Triton kernels that this process has warned of


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
    dtype = choose_dtype(device, options.dtype, options.quantize)
    choices = (options.quantize, options.allow_invalid_utf8, options.trust_remote_code, options.raw, options.engine)
    with still_there(FLAG, source):
        model = read_model(source, device, dtype, *choices, reading)
    seed = secrets.randbits(32) if options.seed is None else options.seed
    torch.manual_seed(seed)
    seed_words = f" · 시드: {seed}" if tells_seed or options.seed is not None else ""
    say(f"장치: {describe_device(device)} · 자료형: {name_dtype(dtype)}{seed_words}")
    if model.chat is not None:
        say("대화 양식(chat_template)이 있는 모델이라 대화로 답합니다. 글을 이어 쓰게 하려면 --raw를 더하세요.")
    names = {"model_name_or_path": str(source), "device": device.type, "dtype": name_dtype(dtype)}
    return model, replace(options, seed=seed, **names)


def read_model(
    source, device, dtype, quantize=None, allow_invalid_utf8=False, trust_remote_code=False, raw=False, engine="auto",
    reading=None,
):  # fmt: skip
    """The LoadedModel of a model folder or a hub id, its weights in `dtype` on `device`.

    quantize: None, "int8" or "int4". raw: continue texts, whatever chat template there is. engine: "torch", "openvino",
        or "auto" for OpenVINO where it can be had. reading: kept.begin_reading's.

    Raises UserError where the model cannot be had, UsageError where OpenVINO is asked for and cannot write by it.
    """
    asked = f"--quantize={quantize}" if quantize else f"--engine={engine}" if engine == "openvino" else None
    if asked and device.type != "cpu":
        raise UsageError(f"{asked}: CPU에서만 쓸 수 있습니다. --device=cpu를 더하세요.")
    openvino = (asked or (engine == "auto" and device.type == "cpu")) and _has_openvino(asked)
    ipex, notice = (None, None) if openvino else load_ipex(device)
    if notice:
        say(notice)
    folder, hub_answers = (Path(source), None) if Path(source).is_dir() else find_cached(source, FLAG)
    config = None if ipex is not None or folder is None else _read_config(folder)
    if config is not None:
        read_words = _read_tokenizer if raw or not _has_template_of_others(folder) else _load_tokenizer
        with ThreadPoolExecutor(1) as thread:  # beside the weights, which wait for memory and device
            words = thread.submit(read_words, folder, config, allow_invalid_utf8)
            if quantize:
                decoder = _quantized_decoder(folder, config, dtype, quantize, reading)
            else:
                decoder = gpt2_decoder(config, read_weights(folder, config, FLAG), device, dtype, openvino=openvino)
        tokenizer, eos_token_id, utf8, speaker = words.result()
    else:
        show_downloads_only()
        model, speaker = load_pretrained(source, dtype, FLAG, trust_remote_code, hub_answers)
        config = model.config.to_dict()
        if is_supported(config) and ipex is None and not hasattr(model, "peft_config"):
            decoder = gpt2_decoder(config, model.state_dict(), device, dtype, openvino=openvino, quantize=quantize)
        elif asked:
            raise UsageError(f"{asked}: GPT-2에만 쓸 수 있는데 이 모델은 다릅니다. 이 플래그를 빼세요.")
        else:
            model = model.to(device).eval()
            decoder = LibraryDecoder(model if ipex is None else ipex.optimize(model, dtype=dtype, inplace=True))
        tokenizer, eos_token_id, utf8, speaker = _known(speaker, decoder.vocab_size, allow_invalid_utf8)
    chat = None if raw else find_chat(speaker, eos_token_id, config.get("learnt_answers"))
    return LoadedModel(decoder, tokenizer, eos_token_id, utf8 and utf8.to(device), chat)


def _has_openvino(asked):
    """Whether the OpenVINO is installed that can be written by; asked: the flag that asks for it, or None.

    Raises UsageError where it is asked for and another is installed.
    """
    try:
        version = metadata.version("openvino")
    except metadata.PackageNotFoundError:
        return asked is not None  # the command line has found one, of which nothing tells the version
    if version.startswith(OPENVINO):
        return True
    other = f"설치된 OpenVINO {version}은 여기에서 쓰는 판({OPENVINO})이 아닙니다"
    if asked:
        raise UsageError(f"{asked}: {other}: pip install -r requirements-openvino.txt")
    say(f"{other}. PyTorch로 계산합니다. OpenVINO를 쓰려면: pip install -r requirements-openvino.txt")
    return False


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


def _quantized_decoder(folder, config, dtype, quantize, reading):
    """The decoder of a GPT-2's folder in fewer bits, from what is kept of it; else it is kept now.

    reading: kept.begin_reading's, or None to read it now.
    """
    from gpt2_korean.generation.openvino_decoder import OpenVINODecoder
    from gpt2_korean.speed.openvino_graph import build_graph

    bfloat16 = dtype == torch.bfloat16
    kept = reading.result() if reading else read_kept(folder, quantize, bfloat16)
    if kept is None:
        say(f"가중치를 {quantize}로 줄이는 중입니다. 다음부터는 간직해 둔 것을 씁니다.")
        tensors = quantize_weights(read_weights(folder, config, FLAG), config, quantize)
        graph = build_graph(config, tensors)
        keep(graph, folder, quantize)
        kept = read_kept(folder, quantize, bfloat16)
        if kept is None:
            return _decoder_of_graph(config, graph, tensors, quantize, bfloat16)
    return OpenVINODecoder(config, *kept)


def _openvino_decoder(config, weights, dtype, quantize):
    from gpt2_korean.speed.openvino_graph import build_graph

    bfloat16 = dtype == torch.bfloat16
    if quantize:
        tensors = quantize_weights(weights, config, quantize)
        return _decoder_of_graph(config, build_graph(config, tensors), tensors, quantize, bfloat16)
    bfloat16 = bfloat16 and computes_bfloat16(torch.device("cpu"))
    # What the processor does not compute in, weights are kept in: to read them takes longest.
    matrices = torch.float32 if bfloat16 else dtype
    tensors = {
        name: weight.detach().to(matrices if weight.ndim == 2 else torch.float32)
        for name, weight in named(weights, config).items()
    }
    graph = build_graph(config, tensors)
    return _decoder_of_graph(config, graph, tensors, quantize, bfloat16, getattr(weights, "mappings", []))


def _decoder_of_graph(config, graph, tensors, quantize, bfloat16, mappings=()):
    from gpt2_korean.generation.openvino_decoder import OpenVINODecoder
    from gpt2_korean.speed.openvino_graph import compile_graph, ready

    return OpenVINODecoder(config, ready(compile_graph(graph, config, quantize, bfloat16), mappings), tensors)


def gpt2_decoder(config, weights, device, dtype, captures=True, openvino=False, quantize=None):
    """The decoder that is fastest on this device; weights: name → tensor.

    captures: record steps as graphs where the device has them, which no other thread of ours may then use.
    quantize: None, or by OpenVINO "int8" or "int4".
    """
    if openvino:
        return _openvino_decoder(config, weights, dtype, quantize)
    if device.type in ("cuda", "xpu"):
        captures = captures and has_graphs(device)  # before another thread works: nothing may be allocated meanwhile
        # A copy: where the kernels fail, the weights are taken once more.
        decoder = _decoder_with_kernels(config, dict(weights), device, dtype, captures)
        return decoder or GPT2Decoder(config, weights, device, dtype, captures=captures)
    return GPT2Decoder(config, weights, device, dtype, linear.packed if linear.packs(device, dtype) else linear.plain)


def _decoder_with_kernels(config, tensors, device, dtype, captures):
    """A GPT2Decoder over the Triton kernels, None where they cannot be compiled: without Triton or a C compiler.

    They compile while the weights are on their way to the device.
    """
    try:
        from gpt2_korean.speed import writing_kernels as kernels
    except Exception as error:
        failure = error
    else:
        with ThreadPoolExecutor(1) as thread:
            compiling = thread.submit(kernels.compile_kernels, *kernel_sizes(config), device, dtype)
            decoder = GPT2Decoder(config, tensors, device, dtype, kernels.fused, kernels.attend, captures)
            torch.mm(decoder.tokens[:16], decoder.tokens[:16].t())  # the first of all products waits for its library
        failure = compiling.exception()
    if failure is None:
        return decoder
    _tell_of_kernels(failure)  # whatever a compiler and a driver can raise
    return None


def _tell_of_kernels(failure):
    """Once of each kind: a run in training asks for the kernels at each evaluation."""
    if type(failure) not in TOLD_OF:
        TOLD_OF.add(type(failure))
        warn_of_failure(failure, f"Triton 커널을 쓸 수 없어 조금 느리게 씁니다 ({type(failure).__name__}).")


def _known(tokenizer, vocab_size, allow_invalid_utf8):
    """`(tokenizer, eos_token_id, utf8, speaker)` of one of transformers: see LoadedModel, and speaker find_chat."""
    backend = getattr(tokenizer, "backend_tokenizer", None) or tokenizer
    utf8 = None if allow_invalid_utf8 else build_tables(backend, vocab_size)
    return backend, tokenizer.eos_token_id, utf8, tokenizer


def _load_tokenizer(folder, config, allow_invalid_utf8):
    """As _known, by transformers."""
    from transformers import GPT2Config

    tokenizer = load_tokenizer(folder, GPT2Config.from_dict(config), FLAG)
    return _known(tokenizer, config["vocab_size"], allow_invalid_utf8)


def _read_tokenizer(folder, config, allow_invalid_utf8):
    """As _known, by tokenizers alone."""
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # tokenizers raises nothing more specific
        raise damaged(FLAG, folder / "tokenizer.json", error) from None
    check_tokens(tokenizer, config["vocab_size"], FLAG, folder)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    token = (read_model_json(FLAG, folder / "tokenizer_config.json") or {}).get("eos_token")
    token = token.get("content") if isinstance(token, dict) else token
    if not isinstance(token, str | None):
        raise damaged(FLAG, folder / "tokenizer_config.json", f"eos_token={token!r}")
    own = tokenizer.token_to_id(token) if token else None
    eos = find_end(own, config.get("eos_token_id"), config["vocab_size"])
    if eos is None:
        raise without_end(folder)
    return tokenizer, eos, None if allow_invalid_utf8 else build_tables(tokenizer, config["vocab_size"]), tokenizer
