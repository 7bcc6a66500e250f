"""The records of a run that was broken off → what of it is still to be written; imports no torch."""

import json
import os
from dataclasses import replace

from gpt2_korean.generation.output import describe_writing
from gpt2_korean.messages import UsageError, say

# These may differ: another machine changes a text by rounding alone, and --batch_size may be given anew.
FREE = ("device", "dtype", "batch_size")
BEGINNING = b'{"prompt": '  # of a record


def take_up(options, prompts, source):
    """`(options, how many texts are written already)`: GenerateOptions with the seed and the batch size of the records
    in the output file, which must be the first of those that `prompts` are to have.

    A line that was cut short is taken out of the file. Raises UsageError where the records are not of this run.
    """
    path, copies = options.output.output_file, options.output.num_return_sequences
    model = replace(options.model, model_name_or_path=str(source))
    wanted = describe_writing(model, options.prompts, options.settings) | {"seed": model.seed}
    size, done, end, total = options.output.batch_size, 0, 0, copies * len(prompts)
    with open(path, "rb") as file:
        for line in file:
            if not line.endswith(b"\n") and BEGINNING.startswith(line[: len(BEGINNING)]):
                break
            prompt, found = _read_record(line)
            if wanted["seed"] is None:
                wanted["seed"] = found.get("seed")
            trouble = _compare(prompt, found, prompts[done // copies] if done < total else None, wanted)
            if trouble:
                raise UsageError(
                    f"--resume: {path}의 {done + 1}번째 줄은 {trouble}. 멈춘 명령에 --resume만 더하거나 "
                    "--output_file에 새 파일을 주세요."
                )
            size, done, end = size or found.get("batch_size"), done + 1, end + len(line)
    if os.path.getsize(path) > end:
        os.truncate(path, end)
    if done:
        rest = "그다음부터 이어 씁니다" if done < total else "더 쓸 것이 없습니다"
        say(f"{path}에 글 {total}편 가운데 {done}편이 있습니다. {rest}.")
    model, output = replace(options.model, seed=wanted["seed"]), replace(options.output, batch_size=size)
    return replace(options, model=model, output=output), done


def _read_record(line):
    """`(prompt, settings and seed)` of a line of the file; `(None, {})` where it is no record."""
    try:
        record = json.loads(line)
        return record["prompt"], record["settings"] | {"seed": record["seed"]}
    except (ValueError, KeyError, TypeError):
        return None, {}


def _compare(prompt, found, expected, wanted):
    """What is wrong with a record, in words that end a sentence; None where it is as it should be."""
    if prompt is None:
        return "글의 기록이 아닙니다"
    if prompt != expected:
        return "다른 앞글이나 다른 --num_return_sequences로 쓴 글입니다"
    for name, value in wanted.items():
        if name not in FREE and found.get(name) != value:
            then, now = (
                "없음" if each is None else json.dumps(each, ensure_ascii=False) for each in (found.get(name), value)
            )
            return f"다른 설정으로 쓴 글입니다(--{name}: 그때는 {then}, 지금은 {now})"
    return None
