"""Hub id | local folder | built-in scratch size → model and tokenizer, their special tokens in agreement."""

import copy
import os
from pathlib import Path

import torch

from gpt2_korean.checkpoints.complete import weights_read
from gpt2_korean.messages import UsageError, UserError, say, warn
from gpt2_korean.model import lora
from gpt2_korean.model.files import check_numbers, told_by_name, unfitting
from gpt2_korean.model.find import find_model
from gpt2_korean.model.gpt2 import SCRATCH_SIZES
from gpt2_korean.model.hub import newest_commit
from gpt2_korean.model.quiet import without_warnings
from gpt2_korean.model.tokenizer import agree_on_ends, learn_scratch_tokenizer, load_tokenizer
from gpt2_korean.windows import WINDOWS

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
CONSTANTS = ("masked_bias", "inv_freq")  # older transformers saved them among the weights
SMALL = 2**24  # weights and buffers that may be made without being held against files


def load_start(start, documents, options):
    """`(model, tokenizer)` that training starts from or goes on with; options: ModelOptions.

    documents: what a built-in size learns its vocabulary from. The weights are float32 whatever the precision: autocast
    computes in bfloat16 or float16, but AdamW's small updates would be lost in them. Raises UserError where the model
    cannot be had.
    """
    if start.from_scratch:
        return make_scratch_model(start.source, documents, options.vocab_size)
    trusts = options.trust_remote_code
    if start.checkpoint is None:
        return load_pretrained(start.source, torch.float32, trust_remote_code=trusts)
    flag = "--resume_from_checkpoint"
    if options.lora_rank:
        with told_by_name(flag, start.checkpoint):
            return load_adapted(start.checkpoint, flag, trusts)
    model, tokenizer = load_pretrained(start.checkpoint, torch.float32, flag, trusts)
    for weight in model.parameters():
        # They are mapped from a file that rotation deletes later: without a copy NFS and FUSE would keep it to the end.
        weight.data = weight.data.clone()
    return model, tokenizer


def make_scratch_model(size, documents, vocab_size=None):
    """`(model, tokenizer)` of a built-in size: random weights, and a vocabulary learnt from `documents`."""
    from transformers import GPT2Config, GPT2LMHeadModel

    tokenizer, shape = learn_scratch_tokenizer(size, documents, vocab_size), SCRATCH_SIZES[size]
    short = f"(글에 서로 다른 낱말이 적어 {vocab_size:,}개에 못 미칩니다)" if len(tokenizer) < (vocab_size or 0) else ""
    say(f"토큰 {len(tokenizer):,}개를 배웠습니다{short}.")
    end, shape = tokenizer.eos_token_id, {**shape, "vocab_size": len(tokenizer)}
    config = GPT2Config(**shape, bos_token_id=end, eos_token_id=end, pad_token_id=end)
    return GPT2LMHeadModel(config), tokenizer


def load_pretrained(source, dtype, flag="--model_type", trust_remote_code=False, hub_answers=None):
    """`(model, tokenizer)` of a model folder or a hub id, the weights in `dtype`.

    hub_answers: what hub.find_cached found out, None where the Hub has not been asked.

    Python code that comes with the model runs only where `trust_remote_code`; pickled weights can run none
    (transformers reads them with weights_only). Raises UserError that names `flag` where the model is
    unreachable, incomplete or damaged.
    """
    with told_by_name(flag, source):
        if hub_answers is None:
            hub_answers = Path(source).is_dir() or newest_commit(source, flag) is not None
        if not (Path(source) / "config.json").exists() and lora.read_adapter(source) is not None:
            model, tokenizer = load_adapted(source, flag, trust_remote_code)
            return lora.merge(model).to(dtype), tokenizer
        access = {"local_files_only": not hub_answers, "trust_remote_code": trust_remote_code}
        return _load_whole(source, dtype, flag, access)


def _load_whole(source, dtype, flag, access):
    """load_pretrained of what is no adapter; raises whatever the libraries do."""
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    attention = choose_attention(source, access["local_files_only"])
    # With output_attentions a model could neither use sdpa nor be saved.
    config = AutoConfig.from_pretrained(source, output_attentions=False, **access, **attention)
    if getattr(config, "is_encoder_decoder", False):
        raise UserError(
            f"{flag}={source}: 글을 다른 글로 옮기는 모델(T5, BART 등)이라 글을 이어 쓰지 못합니다. "
            "GPT-2처럼 앞의 글만 보는 모델을 주세요."
        )
    if getattr(config, "vocab_size", None) is None:  # the larger Gemma 3, for one, nests it in a text_config
        raise UserError(
            f"{flag}={source}: 글만 다루는 모델이 아니라서({config.model_type}) 쓸 수 없습니다. "
            "그림도 다루는 모델이라면 글만 다루는 것을 찾아 주세요."
        )
    tokenizer = load_tokenizer(source, config, flag, **access)
    check_room(source, config, flag, trust_remote_code=access["trust_remote_code"], **attention)
    # transformers would ask the Hub to convert pickled weights, in a thread for which the program's end waits.
    os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")
    with without_warnings():  # its table of what fits is said below
        model, loading = AutoModelForCausalLM.from_pretrained(
            source, config=config, dtype=dtype, output_loading_info=True, **access, **attention,
            disable_mmap=WINDOWS or None,  # None: as it is best
            adapter_kwargs={"local_files_only": access["local_files_only"]},  # not handed on by itself
        )  # fmt: skip
    if loading["missing_keys"] or loading["mismatched_keys"]:
        raise unfitting(flag, source, sorted(map(str, [*loading["missing_keys"], *loading["mismatched_keys"]])))
    unused = sorted(name for name in map(str, loading["unexpected_keys"]) if not name.endswith(CONSTANTS))
    if unused:
        warn(f"{flag}={source}: 모델에 자리가 없는 가중치({unused[0]} 등 {len(unused)}개)는 빼고 읽었습니다.")
    check_numbers(dict(model.named_parameters()), flag, source)
    if _sees_what_follows(model):
        raise UserError(
            f"{flag}={source}: 뒤에 오는 글도 보고 배우는 모델(BERT 등)이라 글을 이어 쓰지 못합니다. "
            "GPT-2처럼 앞의 글만 보는 모델을 주세요."
        )
    rows = model.get_input_embeddings().weight
    if getattr(model.get_output_embeddings(), "weight", rows) is not rows:
        model.config.tie_word_embeddings = False  # else resizing, and other programs, would tie them
    try:
        model.generation_config.validate(strict=True)
    except ValueError:  # a temperature where nothing says to sample, say: with it transformers would save no model
        model.generation_config = GenerationConfig.from_model_config(model.config)
    agree_on_ends(model, tokenizer)
    return model, tokenizer


def _sees_what_follows(model):
    """Whether it is of BERT's kin, which look at the token that they predict where they are not told to be decoders."""
    told = getattr(model.config, "is_decoder", None)  # others have no such attribute, or none in their modules
    return told is False and any(getattr(module, "is_decoder", None) is False for module in model.modules())


def choose_attention(source, local_files_only):
    """What from_pretrained is told where a config asks for FlashAttention without its package: sdpa is as exact.

    Or for the attention of transformers' continuous batching, which fails without its own cache, and since 5.24 lets
    each token see those after it.
    """
    from transformers import PreTrainedConfig
    from transformers.utils import is_flash_attn_2_available

    config, _ = PreTrainedConfig.get_config_dict(source, local_files_only=local_files_only)
    asked = [config.get(name) for name in ("attn_implementation", "_attn_implementation")]
    if any(str(name).startswith("paged|") for name in asked):
        return {"attn_implementation": "eager"}
    if not any(str(name).startswith("flash_attention") for name in asked) or is_flash_attn_2_available():
        return {}
    say(f"{source}: flash_attn이 없어 PyTorch의 어텐션(sdpa)으로 계산합니다. 결과는 같습니다.")
    return {"attn_implementation": "sdpa"}


def check_room(source, config, flag, **access):
    """Raise UserError where the model of a `config` has more weights than bytes in the files of a folder.

    from_pretrained would allocate it before it reads anything; here it is made on the meta device, without memory.
    """
    from transformers import AutoModelForCausalLM

    size = sum(path.stat().st_size for path in weights_read(source))
    if not size or getattr(config, "quantization_config", None):
        return
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(copy.deepcopy(config), **access)
    wanted = sum(tensor.numel() for tensor in (*model.parameters(), *model.buffers()))
    if wanted > size + SMALL:
        raise UserError(
            f"{flag}={source}: config.json의 모델은 매개변수가 {wanted:,}개인데 가중치는 {size:,}바이트뿐입니다. "
            "다른 모델의 파일이 섞였으니 폴더를 통째로 다시 받으세요."
        )


def load_adapted(folder, flag, trust_remote_code=False):
    """`(model, tokenizer)` of an adapter's folder: its base with the adapter on it, float32, to be trained further.

    Raises UserError, and whatever the libraries do.
    """
    from peft import PeftConfig
    from peft.utils import load_peft_weights

    from gpt2_korean.checkpoints.same_run import base_has_changed

    config = PeftConfig.from_pretrained(folder)
    if config.is_prompt_learning or config.is_adaption_prompt:
        raise UserError(
            f"{flag}={folder}: {config.peft_type.value} 어댑터는 바탕 모델에 합칠 수 없어 열지 않습니다. LoRA처럼 "
            "합칠 수 있는 어댑터를 주세요."
        )
    base, name = f"{Path(folder) / lora.CONFIG}의 바탕 모델", config.base_model_name_or_path
    try:
        source = find_model(lora.find_base(folder, name), base)
    except UsageError:  # it would send to what may be given in its place on the command line
        way_on = "바탕 모델을 옮겼다면 그 파일의 base_model_name_or_path를 지금 있는 폴더로 고치세요."
        raise UsageError(f"{base}={name}: 그런 모델 폴더가 없습니다. {way_on}") from None
    if Path(source).resolve() == Path(folder).resolve():
        raise UserError(f"{flag}={folder}: 어댑터의 바탕 모델이 그 어댑터 자신입니다. {lora.CONFIG}을 고치세요.")
    if base_has_changed(Path(folder), Path(source)):
        warn(
            f"{folder}: 이 어댑터를 학습한 뒤에 바탕 모델({source})의 파일이 바뀌었습니다. 그때와 다른 글이 나오니, 그 "
            "학습의 --output_dir에 합친 모델이 있으면 그것을 쓰세요."
        )
    model, tokenizer = load_pretrained(source, torch.float32, base, trust_remote_code)
    weights = load_peft_weights(folder, device="cpu")
    check_numbers(weights, flag, folder)
    embeddings = lora.saved_embeddings(model, weights)
    if embeddings:
        model.resize_token_embeddings(embeddings[0].shape[0], mean_resizing=False)
    if any((Path(folder) / name).exists() for name in TOKENIZER_FILES):  # else it has its base's words
        tokenizer = load_tokenizer(folder, model.config, flag, trust_remote_code=trust_remote_code)
    agree_on_ends(model, tokenizer)
    config.inference_mode = False  # as saved it is True, for those who only load it
    own_embeddings = bool(embeddings) and not getattr(config, "modules_to_save", None)
    adapted = lora.wrap_in_adapter(model, config, own_embeddings)
    if lora.splits_tied_embeddings(adapted):
        raise UserError(f"{flag}={folder}: 입력과 출력이 함께 쓰는 임베딩에 놓인 어댑터라 합치면 다른 모델이 됩니다.")
    loading = adapted.load_adapter(folder, "default", is_trainable=True)
    # peft saves the embeddings of a vocabulary that grew once more, under names that it knows no place for.
    again = (".modules_to_save.weight", ".original_module.weight")
    wrong = [*(name for name in loading.unexpected_keys if not name.endswith(again)), *loading.missing_keys]
    if wrong:
        raise unfitting(flag, folder, wrong, "가중치가 adapter_config.json과 맞지 않습니다")
    return adapted, tokenizer
