"""Prompt texts → ids, and new ids → the text that continues a prompt."""

from pathlib import Path

from gpt2_korean.corpus import normalise
from gpt2_korean.messages import UsageError
from gpt2_korean.text_files import detect_encoding


def read_prompts(prompts, path=None):
    """The prompts of `--prompt` (a list or None) or of the lines of `--prompt_file`, normalised as training texts are.

    No prompt at all is one empty prompt. Raises UserError for a file that cannot be read.
    """
    if path is not None:
        if not Path(path).is_file():
            raise UsageError(f"--prompt_file={path}: 그런 파일이 없습니다.")
        content = Path(path).read_bytes().decode(detect_encoding(path))
        prompts = [line for line in normalise(content)[0].split("\n") if line.strip()]
        if not prompts:
            raise UsageError(f"--prompt_file={path}: 앞글이 없습니다. 한 줄에 하나씩 적으세요.")
    return [normalise(prompt)[0] for prompt in prompts or [""]]


def encode_prompt(prompt, tokenizer):
    """The ids of a prompt; an empty one starts where a document does, after the end-of-text token."""
    return tokenizer(prompt, verbose=False)["input_ids"] or [tokenizer.eos_token_id]


def complete_text(prompt, prompt_ids, new_ids, tokenizer):
    """The prompt with its continuation.

    Tokenizers that mark words' beginnings drop the first one's space, so the continuation is what the
    whole has beyond the prompt.
    """
    options = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
    before = tokenizer.decode(prompt_ids, **options)
    whole = tokenizer.decode(prompt_ids + new_ids, **options)
    continuation = whole[len(before) :] if whole.startswith(before) else tokenizer.decode(new_ids, **options)
    # A cut at the last token can leave a part of a character, which decodes to U+FFFD.
    return prompt + continuation.rstrip("\ufffd")
