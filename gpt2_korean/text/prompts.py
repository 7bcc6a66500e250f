"""Prompt texts, from flags or a file, and their ids."""

from gpt2_korean.messages import UsageError
from gpt2_korean.text.documents import normalise
from gpt2_korean.text.folders import find_path
from gpt2_korean.text.opening import detect_encoding

SAMPLE_PROMPTS = ["오늘은", "옛날 어느 마을에", "한국어 텍스트 생성은"]


def sample_prompts(path):
    """What a model continues as it learns: the lines of `--sample_prompts`, or SAMPLE_PROMPTS where it is None."""
    return SAMPLE_PROMPTS if path is None else read_prompts(None, path, "--sample_prompts")


def read_prompts(prompts, path=None, flag="--prompt_file"):
    """The prompts of `--prompt` (a list or None) or of the lines of `flag`'s file, normalised as training texts are.

    No prompt at all is one empty prompt. Raises UserError for a file that cannot be read.
    """
    if path is not None:
        file = find_path(path)
        if not file.is_file():
            raise UsageError(f"{flag}={path}: 그런 파일이 없습니다.")
        content = file.read_bytes().decode(detect_encoding(file))
        prompts = [line for line in normalise(content)[0].split("\n") if line.strip()]
        if not prompts:
            raise UsageError(f"{flag}={path}: 앞글이 없습니다. 한 줄에 하나씩 적으세요.")
    return [normalise(prompt)[0] for prompt in prompts or [""]]


def encode_prompt(prompt, tokenizer, eos_token_id):
    """The ids of a prompt; an empty one starts where a document does, after the end-of-text token."""
    encoded = tokenizer.encode(prompt)
    # transformers' tokenizers give a list, tokenizers' own an Encoding.
    return list(getattr(encoded, "ids", encoded)) or [eos_token_id]
