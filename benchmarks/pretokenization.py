"""Where may a Korean token begin and end? Ways to cut a text before its BPE is learnt, and what a model learns by them.

    python benchmarks/pretokenization.py --korean=reviews.txt.xz --also=docs.txt --english=books.txt.xz \
      --gpt2_tokenizer=FOLDER

    gpt2        GPT-2's own: at spaces and between letters, digits and signs
    digits      the same, and each digit by itself
    particles   the same, and before the particles and endings that follow a stem, by rule (Thunder-Tok's idea,
                arXiv 2506.15138)
    superwords  GPT-2's for three quarters of the vocabulary; the rest may hold spaces (SuperBPE, arXiv 2503.13423)

Prints tokens per character on documents held out and on a text of another kind, and bits per character of the
same English start (see adaptation.py) after reading the same characters with each.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

sys.path.insert(0, str(Path(__file__).parent))

import adaptation

from gpt2_korean.text.vocabulary import END_OF_TEXT, spent, wrap
from gpt2_korean.training.plan import NEW_EMBEDDINGS

WAYS = ("gpt2", "digits", "particles", "superwords")
ENDINGS = (
    "에서|에게|한테|으로|까지|부터|처럼|보다|이나|이라|라고|하고|이랑|마다|밖에|조차|마저|이고|이며|인데|입니다|습니다|네요|어요|아요|"
    "해요|예요|이에요|지만|는데|은데|면서|려고|도록|니까|어서|아서|해서|다가|던데|거든|잖아|하는|하게|하지|했다|한다|하다|이다|였다|"
    "었다|았다|있다|없다|된다|된|할|한|함|임|음|기|고|다|네|요|지|게|면|서|은|는|이|가|을|를|에|의|도|만|로|와|과|나|들"
)
PARTICLE = f"(?<=[가-힣]{{2}})(?:{ENDINGS})(?![가-힣])"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--korean", required=True, help="one document a line, .txt or .txt.xz")
    parser.add_argument("--also", help="Korean text of another kind, to count tokens in")
    parser.add_argument("--english", required=True)
    parser.add_argument("--gpt2_tokenizer", required=True)
    parser.add_argument("--ways", nargs="+", default=WAYS, choices=WAYS)
    parser.add_argument("--megabytes", type=float, default=1000)
    parser.add_argument("--vocab_size", type=int, default=32_000)
    parser.add_argument("--epochs", type=float, default=1)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--learning_rate", type=float, default=6e-4)
    parser.add_argument("--english_seconds", type=float, default=120)
    parser.set_defaults(source_model=None, english_also=None)
    options = parser.parse_args()

    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    documents, held_out = adaptation.korean_documents(options.korean)
    texts = adaptation.take(documents, options.megabytes * 1e6)
    also = [part for part in adaptation.read(options.also).split("\n\n") if part.strip()] if options.also else None
    start, old = adaptation.english_start(options, device)
    columns = ("way", "tokens", "tokens per character", "on the other text", "bits per character", "±")
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for way in options.ways:
        backend = learn_superwords(texts, options.vocab_size) if way == "superwords" else learn(way, texts, options)
        tokenizer = wrap(options.context, tokenizer_object=backend)
        bits = [
            learn_and_measure(start, old, tokenizer, texts, held_out, seed, options) for seed in range(options.seeds)
        ]
        spread = f"{(max(bits) - min(bits)) / 2:.3f}"
        counted = [f"{spent(tokenizer, text):.3f}" if text else "" for text in (held_out, also)]
        print(
            f"| {way} | {len(tokenizer):,} | {' | '.join(counted)} | {statistics.mean(bits):.3f} | {spread} |",
            flush=True,
        )


def learn_and_measure(start, old, tokenizer, texts, held_out, seed, options):
    """Bits per character after `epochs` over the texts, from the start that train.py would give it."""
    torch.manual_seed(seed)
    blocks = adaptation.packed(texts, tokenizer, options.context, start.device)
    test = adaptation.packed(held_out, tokenizer, options.context, start.device)
    rows, _ = adaptation.computed_rows("ours", start, old, tokenizer, blocks)
    model = adaptation.prepare("ours", start, tokenizer, rows)
    steps = max(1, round(options.epochs * len(blocks) / options.batch))
    adaptation.train(model, blocks, lambda done, _: done / steps, options, NEW_EMBEDDINGS)
    return adaptation.bits_per_character(model, test, sum(map(len, held_out)))


def learn(way, texts, options):
    cuts = {"digits": [pre_tokenizers.Digits(individual_digits=True)]}
    cuts["particles"] = [pre_tokenizers.Split(Regex(PARTICLE), "isolated")]
    return train_bpe(texts, options.vocab_size, *cuts.get(way, []))


def train_bpe(texts, vocab_size, *cuts):
    """A byte-level BPE by tokenizers; `cuts` are pre-tokenizers that divide a text before GPT-2's does."""
    tokenizer = Tokenizer(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*cuts, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer, length=len(texts))
    return tokenizer


def learn_superwords(texts, vocab_size):
    """Three quarters of the tokens learnt within words; then, those being the letters, the rest within whole texts."""
    words = train_bpe(texts, vocab_size * 3 // 4)
    vocabulary, merges = parts(words)
    letters = {index: chr(0xF0000 + index) for index in vocabulary.values()}  # for private use in Unicode
    lines = ["".join(letters[index] for index in line.ids) for line in words.encode_batch(texts)]
    longer = Tokenizer(models.BPE())  # without a pre-tokenizer a whole text is one word
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, min_frequency=2, initial_alphabet=list(letters.values()), show_progress=False
    )
    longer.train_from_iterator(lines, trainer, length=len(lines))
    spelt = {letters[index]: token for token, index in vocabulary.items()}
    for pair in parts(longer)[1]:
        left, right = ("".join(spelt[letter] for letter in half) for half in pair)
        vocabulary.setdefault(left + right, len(vocabulary))
        merges.append((left, right))
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    whole = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex("\n+"), "isolated"), whole])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([END_OF_TEXT])
    return tokenizer


def parts(tokenizer):
    """The vocabulary, token → id, and the merges, pairs of tokens, of a BPE."""
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [tuple(pair) for pair in model["merges"]]


if __name__ == "__main__":
    main()
