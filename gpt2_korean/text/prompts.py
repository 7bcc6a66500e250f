"""Prompt texts, from flags or a file, and their ids."""

import sys
import threading
from contextlib import suppress

from gpt2_korean.messages import UsageError, UserError, say
from gpt2_korean.text.chat_template import encode_texts
from gpt2_korean.text.folders import describe_missing, find_path
from gpt2_korean.text.normalise import normalise
from gpt2_korean.text.opening import detect_encoding, file_format, open_lines

SAMPLE_PROMPTS = ["오늘은", "옛날 어느 마을에", "한국어 텍스트 생성은"]
SAMPLE_QUESTIONS = ["안녕하세요", "오늘 기분이 어때?", "저녁은 뭐 먹지?"]


def sample_prompts(path):
    """What a model continues or answers as it learns: the lines of `--sample_prompts`, None where none are given."""
    return None if path is None else read_prompts(None, path, "--sample_prompts")


def read_prompts(prompts, path=None, flag="--prompt_file"):
    """The prompts of `--prompt` (a list or None) or of the lines of `flag`'s file, normalised as training texts are.

    No prompt at all is one empty prompt. Raises UserError for a file that cannot be read.
    """
    if path is not None:
        file = find_path(path)
        if file.is_fifo():  # as `<(...)` of a shell: what is read once to find its encoding is gone
            raise UsageError(f"{flag}={path}: 파이프는 읽을 수 없습니다. 앞글을 파일에 저장해서 주세요.")
        if not file.is_file():
            raise UsageError(f"{flag}={path}: 그런 파일이 없습니다. {describe_missing(path)}")
        if file_format(file) not in (".txt", None):
            raise UsageError(
                f"{flag}={path}: 표에서는 앞글을 읽지 않습니다. 앞글을 한 줄에 하나씩 적은 .txt(.gz .xz) 파일을 주세요."
            )
        with open_lines(file, detect_encoding(file, way_on="UTF-8로 다시 저장하세요")) as lines:
            content = "".join(lines)  # one by one: a line that no memory holds is refused
        prompts = [line for line in normalise(content)[0].split("\n") if line.strip()]
        if not prompts:
            raise UsageError(f"{flag}={path}: 앞글이 없습니다. 한 줄에 하나씩 적으세요.")
    return [normalise(prompt)[0] for prompt in prompts or [""]]


def find_prompts(options, takes_piped=True):
    """The prompts of `options` (generate.py's PromptOptions), or what is piped into the script where it gives none."""
    if options.prompt is None and options.prompt_file is None and takes_piped:
        return read_prompts(_piped_prompt())
    return read_prompts(options.prompt, options.prompt_file)


def _piped_prompt():
    """All of stdin as a list of one prompt; None from a terminal, and where nothing comes or it is closed. Raises
    UserError as decode_piped does."""
    waiting = '표준 입력에서 앞글을 기다립니다. 앞글 없이 쓰려면 --prompt=""를 주세요.'
    patience = threading.Timer(2, say, [waiting])
    patience.daemon = True
    try:
        if sys.stdin.isatty():
            return None
        patience.start()
        content = sys.stdin.buffer.read()
    except (AttributeError, OSError, ValueError):  # there is none, or it is closed
        return None
    finally:
        patience.cancel()
    piped = decode_piped(content)
    return [piped.rstrip("\r\n")] if piped.strip() else None


def decode_piped(content):
    """The text of bytes that are piped into the script, or typed: of UTF-8, else in the encoding of the system, which
    Windows' pipes have. Raises UserError.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        with suppress(UnicodeDecodeError):
            return content.decode(sys.stdin.encoding)
        way_on = "CP949라면 `| iconv -f cp949 -t utf-8 |`을 사이에 넣거나, 파일에 적어 --prompt_file로 주세요."
        if sys.stdin.isatty():
            way_on = "터미널의 문자 인코딩을 UTF-8로 바꾸세요."
        raise UserError(f"표준 입력의 {error.start}번째 바이트부터 UTF-8로 읽을 수 없습니다. {way_on}") from None


def encode_prompt(prompt, tokenizer, eos_token_id):
    """The ids of a prompt; an empty one starts where a document does, after the end-of-text token.

    A tokenizer that training has left puts that token in front of every prompt.
    tokenizer: of tokenizers or of transformers. The name of a special token in a prompt is text, as in training.
    """
    return encode_prompts([prompt], tokenizer, eos_token_id)[0]


def encode_prompts(prompts, tokenizer, eos_token_id):
    """As encode_prompt, of each of `prompts`: all at once, over all cores.

    The end that tokenizers like BERT's put behind a text is left out: the prompt goes on.
    """
    encoded = encode_texts(prompts, tokenizer, whole=True)
    if any(ids[-1:] == [eos_token_id] for ids in encoded):
        own = encode_texts(prompts, tokenizer)  # a text's own last token may be the end of text, where that is a word
        pairs = zip(encoded, own, strict=True)
        encoded = [ids[:-1] if ids[-1 - len(bare) :] == [*bare, eos_token_id] else ids for ids, bare in pairs]
    return [ids or [eos_token_id] for ids in encoded]
