"""How often does a model go on as the text did, where that was cut behind a space, within a word or at the end of one?

Texts that the model has not learnt, a line each, are cut at random places and gone on with greedily: by
generate.py's ways (--token_healing=false, as it is by default, and true), and by transformers' generate() with its own
token_healing, which reads a prompt without the spaces around it. Printed are the shares of new texts whose first
letter, and first two, are the text's own, and of those that begin with a space.

    python benchmarks/token_healing.py --model_name_or_path=FOLDER --texts=HELD_OUT.txt
"""

import argparse
import random
from dataclasses import replace

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from gpt2_korean.cli.generate_options import parse_generate_options
from gpt2_korean.generation.load import load
from gpt2_korean.generation.write import stream_texts

CUTS = ("behind a space", "within a word", "at the end of a word", "anywhere")
WAYS = {"false": False, "as it is": None, "true": True}
LONGEST, AT_ONCE, SEEDS = 300, 200, range(3)  # characters of a prompt


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_name_or_path", required=True)
    parser.add_argument("--texts", required=True)
    parser.add_argument("--count", type=int, default=1000, help="of each way to cut, and each of three seeds")
    parser.add_argument("--library_count", type=int, default=200, help="of those by transformers, one after another")
    options = parser.parse_args()
    with open(options.texts, encoding="utf-8") as lines:
        texts = [line.strip() for line in lines if len(line) > 40]
    words = [f"--model_name_or_path={options.model_name_or_path}", "--temperature=0", "--length=5", "--dtype=float32"]
    flags = parse_generate_options(words)
    model, settled = load(options.model_name_or_path, flags.model)
    library = AutoModelForCausalLM.from_pretrained(options.model_name_or_path, dtype=torch.float32)
    library, tokenizer = library.to(settled.device).eval(), AutoTokenizer.from_pretrained(options.model_name_or_path)
    logging.set_verbosity_error()
    print("| cut | by | first letter, % | first two, % | begin with a space, % |\n|---|---|---|---|---|")
    for cut in CUTS:
        found = {}
        for seed in SEEDS:
            cases = cut_texts(texts, cut, options.count, random.Random(seed))
            prompts, rest = zip(*cases, strict=True)
            for name, way in WAYS.items():
                new = go_on(model, prompts, replace(flags.settings, token_healing=way))
                found.setdefault(f"--token_healing={name}", []).append(compare(new, rest))
            fewer = prompts[: options.library_count]
            new = [go_on_by_library(library, tokenizer, prompt) for prompt in fewer]
            found.setdefault("transformers' token_healing", []).append(compare(new, rest[: len(fewer)]))
        print(f"| {cut} | the text itself | 100 | 100 | {100 * sum(each[0] == ' ' for each in rest) / len(rest):.1f} |")
        for name, figures in found.items():
            columns = (f"{min(each):.1f} to {max(each):.1f}" for each in zip(*figures, strict=True))
            print(f"| {cut} | {name} | {' | '.join(columns)} |", flush=True)


def cut_texts(texts, cut, count, rng):
    """`count` pairs: the beginning of a text, or a stretch of it from a word on, and what follows it."""
    cases = []
    while len(cases) < count:
        text = rng.choice(texts)
        start = text.find(" ", rng.randrange(len(text))) + 1 if len(text) > 2 * LONGEST else 0
        text = text[start : start + LONGEST]
        at = rng.randrange(1, max(2, len(text) - 6))
        if cut in ("behind a space", "at the end of a word"):
            at = text.find(" ", at) + (cut == "behind a space")
        within = text[at - 1 : at] != " " and text[at : at + 1] != " "
        if at > 5 and len(text) - at > 5 and (cut != "within a word" or within):
            cases.append((text[:at], text[at:]))
    return cases


def go_on(model, prompts, settings):
    new = []
    for start in range(0, len(prompts), AT_ONCE):
        part = prompts[start : start + AT_ONCE]
        texts = [""] * len(part)
        for _, pieces in stream_texts(model, part, settings):
            texts = [text + piece for text, piece in zip(texts, pieces, strict=True)]
        new += texts
    return new


def go_on_by_library(model, tokenizer, prompt):
    """What transformers writes behind `prompt`; "" where it is no beginning of it."""
    ids = tokenizer(prompt, return_tensors="pt").to(model.device)
    whole = model.generate(
        **ids, tokenizer=tokenizer, token_healing=True, do_sample=False, max_new_tokens=6,
        pad_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    whole = tokenizer.decode(whole[0], skip_special_tokens=True)
    return whole[len(prompt) :] if whole.startswith(prompt) else ""


def compare(new, rest):
    """Shares in percent: of texts that go on as `rest` for a letter, for two, and that begin with a space."""
    first, two = (sum(a[:n] == b[:n] for a, b in zip(new, rest, strict=True)) for n in (1, 2))
    return [100 * count / len(new) for count in (first, two, sum(text.startswith(" ") for text in new))]


if __name__ == "__main__":
    main()
