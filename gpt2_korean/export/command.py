"""generate.py --export: what files alone can tell is refused at once; then the model is loaded and written."""

import contextlib
import importlib.util
import os
import re
import shutil
from functools import partial
from pathlib import Path

from gpt2_korean.checkpoints.atomic_files import UNFINISHED, rename_into_place, staging_area, sync, write_file
from gpt2_korean.checkpoints.complete import card_metadata, read_json
from gpt2_korean.export.modelfile import modelfile
from gpt2_korean.export.turns import find_turns, turns_of_prompts
from gpt2_korean.export.vocabulary import CONTROL, read_vocabulary, refusal
from gpt2_korean.messages import UsageError, UserError, particle, print_once, say, warn
from gpt2_korean.model.gpt2 import TANH_GELU, is_gpt2
from gpt2_korean.text.chat_prompt import find_chat
from gpt2_korean.text.chat_template import render
from gpt2_korean.windows import join_command

SUFFIX = ".gguf"
SPARE = 1 << 23  # bytes for all that is no weight: a vocabulary of 50,000 tokens takes a fifth of it


def export(source, options):
    """Write the model of a folder or a hub id as a GGUF file, and a Modelfile beside it; options: GenerateOptions.

    Prints both paths, and says what to do with them. Raises UserError where the model cannot be exported, UsageError
    for flags that do not fit it.
    """
    path = Path(options.export.export)
    check_target(path)
    if importlib.util.find_spec("gguf") is None:
        raise UserError("--export에는 패키지가 하나 더 필요합니다: pip install -r requirements-export.txt")
    check_config(read_json(Path(source) / "config.json") or {"model_type": "gpt2"})

    import torch

    from gpt2_korean.export import gguf_file
    from gpt2_korean.model.load import load_pretrained
    from gpt2_korean.model.quiet import show_downloads_only

    with finished_as(path) as unfinished:
        show_downloads_only()
        model, tokenizer = load_pretrained(source, torch.float32, "--model_name_or_path")
        config = model.config.to_dict()
        check_config(config)
        vocabulary = read_vocabulary(tokenizer, config["vocab_size"], config["bos_token_id"])
        if options.model.raw:
            tokenizer.chat_template = None
        chat = find_chat(tokenizer, vocabulary.end)
        turns = choose_turns(tokenizer, vocabulary, options.prompts)
        tensors, wanted = gguf_file.read_tensors(model), options.export.export_type
        size = gguf_file.count_stored(tensors, wanted)
        check_space(unfinished.parent, size)
        parameters = sum(tensor.numel() for tensor in tensors.values())
        say(f"매개변수 {parameters:,}개를 {particle(wanted, '으로/로')} 씁니다(약 {size / 1e6:,.0f}MB).")

        def tell(writer):
            gguf_file.tell_origin(writer, path.stem, card_metadata(source), parameters)
            gguf_file.tell_model(
                writer, config, vocabulary, tokenizer.chat_template, vocabulary.end if chat is None else chat.end
            )
            gguf_file.tell_sampling(writer, options.settings)

        text = modelfile(
            path.name, turns, options.settings, config["n_positions"], options.model.seed, options.prompts.system,
            marks_of(vocabulary, turns),
        )  # fmt: skip
        gguf_file.write_gguf(unfinished, tensors, wanted, tell)
    write_file(modelfile_of(path), text)
    for file in (path, modelfile_of(path)):
        print_once(file)
    say(describe_use(path, chat is not None, options.settings.length, options.prompts.system))


def modelfile_of(path):
    """Where the Modelfile of a GGUF file lies."""
    return path.with_suffix(".Modelfile")


def check_target(path):
    """Raise UsageError for a path that is not one of a new GGUF file in a folder that is there and can be written."""
    if path.suffix != SUFFIX:
        raise UsageError(f"--export={path}: {particle(SUFFIX, '으로/로')} 끝나는 파일 이름을 주세요(예: 내모델.gguf).")
    if not path.parent.is_dir():
        raise UsageError(f"--export={path}: {path.parent} 폴더가 없습니다. 먼저 만드세요.")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise UsageError(f"--export={path}: {path.parent} 폴더에 쓸 수 없습니다. 권한을 확인하거나 다른 경로를 주세요.")
    for file in (path, modelfile_of(path)):
        if file.exists():
            raise UsageError(
                f"--export={path}: {particle(str(file), '이/가')} 이미 있어 덮어쓰지 않았습니다. 지우거나 다른 이름을 "
                "주세요."
            )


def check_config(config):
    """Raise UserError for the config, a dict, of a model that llama.cpp would compute otherwise, or not at all."""
    kind, activation = config.get("model_type"), config.get("activation_function", "gelu_new")
    if not is_gpt2(config):
        other = "곁의 글도 읽는 GPT-2(add_cross_attention)" if kind == "gpt2" else f"GPT-2가 아닌 모델({kind})"
        raise refusal(f"{other}입니다. llama.cpp의 convert_hf_to_gguf.py가 아는 모델인지 보세요.")
    if config.get("quantization_config"):
        raise refusal("이미 양자화된 모델입니다. 양자화하기 전의 모델을 주세요.")
    if activation not in TANH_GELU:
        raise refusal(f"llama.cpp의 GPT-2는 gelu_new로만 계산하는데 activation_function이 {activation}입니다.")
    for name, usual in (("scale_attn_weights", True), ("scale_attn_by_inverse_layer_idx", False)):
        if bool(config.get(name, usual)) != usual:
            raise refusal(f"llama.cpp의 GPT-2에는 {name}={str(config[name]).lower()}인 어텐션이 없습니다.")


@contextlib.contextmanager
def finished_as(path):
    """A path to write a file to, which becomes `path` once all is done; else nothing is left of it."""
    area = staging_area(path.parent, f"{UNFINISHED}-{path.name}")
    unfinished = area / path.name
    try:
        yield unfinished
        sync(area)
        rename_into_place(unfinished, path)
    except OSError as error:
        if error.errno is None:  # NumPy says no more than that it could not write all
            raise UserError(
                f"--export={path}: 끝까지 쓰지 못했습니다. 디스크의 남은 공간과 할당량, 파일 크기 한도(ulimit -f, "
                "FAT32는 4GB)를 확인하세요."
            ) from None
        error.filename = error.filename or str(path)
        raise
    finally:
        shutil.rmtree(area, ignore_errors=True)


def check_space(folder, size):
    """Raise UserError where the disk of `folder` has no room for so many bytes of weights."""
    free = shutil.disk_usage(folder).free
    if free < size + SPARE:
        raise UserError(
            f"--export: 디스크에 {(size + SPARE) / 1e6:,.0f}MB가 필요한데 {free / 1e6:,.0f}MB만 남았습니다. 공간을 "
            "비우거나, 다른 디스크의 경로나 --export_type=q8_0을 주세요."
        )


def choose_turns(tokenizer, vocabulary, prompts):
    """How Ollama is to write conversations, as Turns; None where it is not to. prompts: PromptOptions.

    Raises UsageError for flags that the model's template has no use for.
    """
    turns = turns_of_prompts(prompts.prompt_template) if prompts.prompt_template else None
    if tokenizer.chat_template is not None:
        if turns:
            raise UsageError(
                "--prompt_template: 대화 양식(chat_template)이 있는 모델이라 틀이 필요 없습니다. 이 플래그를 빼세요."
            )
        write = partial(render, tokenizer, refusal=str, tokenize=False)
        turns = find_turns(write, vocabulary.tokens[vocabulary.begin] if vocabulary.adds_begin else "")
        if turns is None:
            warn(
                "대화 양식(chat_template)을 Ollama의 말로 옮기지 못했습니다. Ollama로 대화하려면 Modelfile의 "
                "TEMPLATE을 고치세요. llama.cpp는 GGUF에 든 대화 양식을 그대로 씁니다."
            )
    if prompts.system and "system" not in (turns.around if turns else ()):
        raise UsageError("--system: 이 모델에는 역할을 적을 자리가 없습니다. 이 플래그를 빼세요.")
    return turns


def marks_of(vocabulary, turns):
    """The special tokens at which a text is over: those that a conversation is marked with, and the end of a text."""
    pieces = "".join(piece for around in turns.around.values() for piece in around) if turns else ""
    special = (token for token, kind in zip(vocabulary.tokens, vocabulary.types, strict=True) if kind == CONTROL)
    return [vocabulary.tokens[vocabulary.end], *(token for token in special if token in pieces)]


def describe_use(path, talks, length, system=None):
    """The lines that say how a GGUF file is opened elsewhere, with the `system` prompt that it does not hold."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("-._") or "gpt2-korean"
    begin, role = [] if talks else ["오늘은"], ["-sys", system] if system else []
    llama = ["llama-cli", "-m", path, *role] if talks else ["llama-completion", "-m", path, "-p", *begin, "-n", length]
    ollama = ["ollama", "create", name, "-f", modelfile_of(path)], ["ollama", "run", name, *begin]
    llama, create, run = (join_command(list(map(str, words))) for words in (llama, *ollama))
    return f"llama.cpp로: {llama}\nOllama로: {create}\n          {run}"
