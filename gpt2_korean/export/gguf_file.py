"""A GPT-2's weights and vocabulary → a GGUF file, one tensor at a time."""

import math
import re

import gguf
import numpy as np

from gpt2_korean.export.vocabulary import UNUSED, refusal
from gpt2_korean.messages import UserError
from gpt2_korean.model.gpt2 import inner_width, weight_shapes
from gpt2_korean.model.lora import merged_weights

FILE_TYPES = {
    "f32": (gguf.LlamaFileType.ALL_F32, gguf.GGMLQuantizationType.F32),
    "f16": (gguf.LlamaFileType.MOSTLY_F16, gguf.GGMLQuantizationType.F16),
    "bf16": (gguf.LlamaFileType.MOSTLY_BF16, gguf.GGMLQuantizationType.BF16),
    "q8_0": (gguf.LlamaFileType.MOSTLY_Q8_0, gguf.GGMLQuantizationType.Q8_0),
}
SUPPRESSED = "tokenizer.ggml.suppress_tokens"  # of which gguf 0.19 knows nothing
CONV1D = ("c_attn.weight", "c_proj.weight", "c_fc.weight")  # which transformers keeps the other way round
GENERATION = re.compile(r"({%[-+]?\s*)(end)?generation(\s*[-+]?%})")


def read_tensors(model):
    """GGUF's name → tensor of a GPT2LMHeadModel, an adapter on it merged in; the head where it is its own."""
    weights = {name.removeprefix("transformer."): weight for name, weight in merged_weights(model).items()}
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GPT2, model.config.n_layer)
    tensors = {}
    for name in weight_shapes(model.config.to_dict()):
        there = names.get_name(f"transformer.{name}", try_suffixes=(".weight", ".bias"))
        tensors[there] = weights[name].T if name.endswith(CONV1D) else weights[name]
    if model.get_output_embeddings().weight is not model.get_input_embeddings().weight:
        tensors["output.weight"] = weights["lm_head.weight"]
    return tensors


def choose_type(name, shape, wanted):
    """What a tensor is stored as. llama.cpp computes with some in float32 only, and q8_0 has blocks of 32 in a row."""
    if len(shape) < 2 or name == "position_embd.weight":
        return gguf.GGMLQuantizationType.F32
    fits = shape[-1] % gguf.GGML_QUANT_SIZES[wanted][0] == 0
    return wanted if fits else gguf.GGMLQuantizationType.F16


def count_stored(tensors, export_type):
    """How large the tensors of read_tensors are in the file, together."""
    return sum(_bytes(tensor.shape, kind) for _, tensor, kind in _stored(tensors, export_type))


def write_gguf(path, tensors, export_type, about):
    """Write a GGUF file. tensors: of read_tensors. about: a function that tells a gguf.GGUFWriter all else.

    Raises UserError for weights that `export_type` has no number for.
    """
    file_type, _ = FILE_TYPES[export_type]
    stored = list(_stored(tensors, export_type))
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[gguf.MODEL_ARCH.GPT2])
    try:
        writer.add_type(gguf.GGUFType.MODEL)
        writer.add_file_type(file_type)
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        about(writer)
        for name, tensor, kind in stored:
            writer.add_tensor_info(name, tensor.shape, np.dtype(np.float32), _bytes(tensor.shape, kind), kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for _, tensor, kind in stored:
            array = tensor.float().contiguous().numpy()
            with np.errstate(over="ignore"):
                data = gguf.quantize(array, kind)
            if not np.isfinite(gguf.dequantize(data, kind)).all():
                raise _without_number(array, export_type)
            writer.write_tensor_data(data)
    finally:
        writer.close()


def tell_model(writer, config, vocabulary, chat_template, turn_end):
    """Tell a GGUFWriter the shape of a GPT-2, config a dict, and its Vocabulary.

    chat_template: None for a model that continues texts. turn_end: the id that ends an answer, or a text.
    """
    writer.add_context_length(config["n_positions"])
    writer.add_embedding_length(config["n_embd"])
    writer.add_block_count(config["n_layer"])
    writer.add_feed_forward_length(inner_width(config))
    writer.add_head_count(config["n_head"])
    writer.add_layer_norm_eps(config["layer_norm_epsilon"])
    writer.add_vocab_size(len(vocabulary.tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    writer.add_token_merges(vocabulary.merges)
    writer.add_bos_token_id(vocabulary.begin)
    writer.add_eos_token_id(vocabulary.end)
    writer.add_eot_token_id(turn_end)
    writer.add_add_bos_token(vocabulary.adds_begin)
    writer.add_add_eos_token(vocabulary.adds_end)
    # Rows that no token has are not to be written.
    writer.add_array(SUPPRESSED, [index for index, kind in enumerate(vocabulary.types) if kind == UNUSED])
    if chat_template is not None:
        # What marks the answers for training is known to transformers alone; a condition trims the same blanks.
        writer.add_chat_template(GENERATION.sub(lambda mark: _condition(*mark.groups()), chat_template))


def tell_sampling(writer, settings):
    """Tell a GGUFWriter generate.py's Settings, with which llama.cpp then starts."""
    writer.add_sampling_temp(settings.temperature)
    writer.add_sampling_top_k(settings.top_k)
    writer.add_sampling_top_p(settings.top_p)
    writer.add_sampling_min_p(settings.min_p)
    writer.add_sampling_penalty_repeat(settings.repetition_penalty)
    writer.add_sampling_penalty_last_n(settings.repetition_window or -1)


def tell_origin(writer, name, card, parameters):
    """Tell a GGUFWriter what a model is called, and what its card, a dict of metadata, says of licence and language."""
    writer.add_name(name)
    writer.add_size_label(gguf.size_label(parameters, parameters, 0, 0))
    licence, languages = card.get("license"), card.get("language")
    if isinstance(licence, str) and licence != "unknown":
        writer.add_license(licence)
    languages = [languages] if isinstance(languages, str) else languages
    if isinstance(languages, list) and all(isinstance(language, str) for language in languages):
        writer.add_languages(languages)


def _stored(tensors, export_type):
    """Yield `(name, tensor, what it is stored as)`."""
    for name, tensor in tensors.items():
        yield name, tensor, choose_type(name, tensor.shape, FILE_TYPES[export_type][1])


def _bytes(shape, kind):
    return math.prod(gguf.quant_shape_to_byte_shape(shape, kind))


def _without_number(array, export_type):
    if not np.isfinite(array).all():
        return refusal("가중치에 수가 아닌 값(NaN이나 무한대)이 있습니다.")
    return UserError(f"--export_type={export_type}: 가중치의 큰 값을 담지 못하는 자료형입니다. bf16이나 f32를 주세요.")


def _condition(opening, end, closing):
    return f"{opening}{'endif' if end else 'if true'}{closing}"
