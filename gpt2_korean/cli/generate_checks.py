"""Flags of generate.py that do not go together, or not with the model; imports no torch."""

import os
from importlib.util import find_spec

from gpt2_korean.messages import UsageError, particle
from gpt2_korean.text.chat_prompt import ignores_system

# What a page has no use for.
NOT_SERVED = ("interactive", "prompt_file", "output_file")
# How many texts are written together and when they are shown: with a person in front of them that is settled.
NOT_ASKED = ("stream", "batch_size", "resume")
# What is of use where a model is exported; the values of sampling are written beside it.
EXPORTED = {"export", "export_type", "model_name_or_path", "raw", "prompt_template", "system", "length", "stop", "seed"}
EXPORTED |= {"top_k", "top_p", "min_p", "temperature", "repetition_penalty", "repetition_window"}
EXPORTED |= {"frequency_penalty", "presence_penalty"}
ONE_ANSWER = "--num_return_sequences는 --interactive의 대화에서는 1이어야 합니다."


def check_together(options, given):
    """Raise UsageError for flags that do not go together; options, given: all flags, and those of the command line."""
    useless = sorted(given.keys() - EXPORTED)
    if options.export and useless:
        raise UsageError(
            f"--export와 --{useless[0]} 플래그는 함께 쓸 수 없습니다. 내보낼 때는 글을 쓰지 않으니 이 플래그를 빼세요."
        )
    if "export_type" in given and not options.export:
        raise UsageError("--export_type은 내보낼 때만 쓰입니다. --export=내모델.gguf를 더하거나 이 플래그를 빼세요.")
    _check_engine(options)
    if options.prompt_file and options.prompt:
        raise UsageError("--prompt와 --prompt_file은 함께 쓸 수 없습니다. 하나만 주세요.")
    files = options.prompt_file, options.output_file
    if all(files) and all(map(os.path.exists, files)) and os.path.samefile(*files):
        raise UsageError(
            f"--output_file={files[1]}: 앞글을 읽을 파일(--prompt_file)입니다. 결과를 쓸 다른 파일을 주세요."
        )
    if options.interactive and (options.prompt or options.prompt_file):
        raise UsageError("--interactive에서는 앞글을 직접 치니 --prompt나 --prompt_file을 빼세요.")
    if options.interactive and options.prompt_template and options.num_return_sequences > 1:
        raise UsageError(ONE_ANSWER)
    if options.system and (options.raw or options.prompt_template):
        other = "--raw와" if options.raw else "--prompt_template과"
        raise UsageError(
            f"--system은 대화 양식이 있는 모델과의 대화에 쓰이므로 {other} 함께 쓸 수 없습니다. 하나만 주세요."
        )
    if options.min_length > options.length:
        most = particle(f"--length={options.length}", "을/를")
        raise UsageError(f"--min_length={options.min_length}: {most} 넘을 수 없습니다. --length를 더 크게 주세요.")
    if options.serve:
        _check_serving(options)
    for name in NOT_ASKED:
        if name in given and (options.serve or options.interactive):
            mode = "--serve" if options.serve else "--interactive"
            raise UsageError(
                f"{mode}와 --{name} 플래그는 함께 쓸 수 없습니다. 글은 한 편씩, 쓰는 대로 보이니 이 플래그를 빼세요."
            )
    if options.resume and not options.output_file:
        raise UsageError(
            "--resume은 파일에 쓰던 글을 이어 쓸 때만 쓰입니다. --output_file을 더하거나 이 플래그를 빼세요."
        )
    for name in ("host", "port", "api_key", "cors_origin"):
        if name in given and not options.serve:
            raise UsageError(f"--{name} 플래그는 웹 페이지를 열 때만 쓰입니다. --serve를 더하거나 이 플래그를 빼세요.")


def _check_engine(options):
    asked = f"--quantize={options.quantize}" if options.quantize else f"--engine={options.engine}"
    if options.quantize and options.engine == "torch":
        raise UsageError(f"{asked}: OpenVINO로만 쓸 수 있습니다. --engine=torch를 빼세요.")
    if options.quantize and options.dtype == "float16":
        raise UsageError(f"{asked}: --dtype=float16으로는 쓸 수 없습니다. --dtype을 빼거나 float32로 주세요.")
    if (options.quantize or options.engine == "openvino") and find_spec("openvino") is None:
        raise UsageError(f"{asked}: 패키지가 하나 더 필요합니다: pip install -r requirements-openvino.txt")


def _check_serving(options):
    for name in NOT_SERVED:
        if getattr(options, name):
            raise UsageError(f"--serve와 --{name} 플래그는 함께 쓸 수 없습니다. 하나만 주세요.")
    if options.num_return_sequences > 1 or len(options.prompt or []) > 1:
        raise UsageError("--serve에는 --prompt를 하나만 주고 --num_return_sequences를 빼세요. 글은 한 편씩 씁니다.")


def check_chat(options, chat, prompts):
    """Raise UsageError for flags and prompts that a model does not take.

    options: GenerateOptions. chat: the model's Chat, None where it continues texts. prompts: those given at once.
    """
    system = options.prompts.system
    if chat is None:
        if system:
            raise UsageError(
                "--system: 대화 양식(chat_template)이 없는 모델에는 쓸 수 없습니다. 이 플래그를 빼고 앞글에 적으세요."
            )
        return
    if options.prompts.prompt_template:
        raise UsageError(
            "--prompt_template: 대화 양식(chat_template)이 있는 모델이라 틀이 필요 없습니다. 이 플래그를 빼세요. "
            "틀에 넣은 글을 이어 쓰게 하려면 --raw를 더하세요."
        )
    if options.output.interactive and options.output.num_return_sequences > 1:
        raise UsageError(ONE_ANSWER)
    if not options.page.serve and not all(map(str.strip, prompts)):
        raise UsageError(
            "대화 모델에 건넬 말이 없습니다. --prompt에 말을 적거나 --interactive로 대화하세요. "
            "빈 글에서 이어 쓰게 하려면 --raw를 더하세요."
        )
    if system and ignores_system(chat, system):
        raise UsageError("--system: 모델의 대화 양식(chat_template)에 자리가 없습니다. 빼고 첫 말에 적으세요.")
