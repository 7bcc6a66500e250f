"""The name of a special token in a person's text is text; only the program itself ends a document."""

from types import SimpleNamespace

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from gpt2_korean.text.blocks import pack, pack_texts
from gpt2_korean.text.documents import Texts, read_corpus
from gpt2_korean.text.packing import plan_stream
from gpt2_korean.text.prompts import encode_prompt

OPTIONS = SimpleNamespace(block_size=None, packing=None, train_on_prompt=False)
SEEDS = SimpleNamespace(seed=0, data_seed=None, train_sampling_strategy="random")

SPECIAL = ["<s>", "</s>", "<pad>", "<unk>", "<|endoftext|>"]
TEXTS = [f"앞 글{name}뒤의 글, {name} {name}{name}" for name in SPECIAL]


@pytest.fixture(params=["byte-level", "words", "Python"])
def tokenizer(request, byte_tokenizer, sample_texts):
    """As GPT-2's, as KoGPT2's, and one of transformers that is written in Python."""
    if request.param == "byte-level":
        return byte_tokenizer
    if request.param == "Python":
        return ByT5Tokenizer()
    words = Tokenizer(models.BPE(unk_token="<unk>"))
    words.pre_tokenizer, words.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=2000, special_tokens=SPECIAL, show_progress=False)
    words.train_from_iterator([*sample_texts, "< | > s / p a d u n k e n d o f t x"], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=words, eos_token="</s>", pad_token="<pad>", unk_token="<unk>")


def test_a_document_that_names_the_end_of_text_is_not_cut_there(tokenizer, tmp_path):
    path = tmp_path / "글.txt"
    path.write_text("\n\n".join(TEXTS), "utf-8")
    block = pack(read_corpus([path]), tokenizer, 4096, plan_stream)[0]
    ids, end = block["input_ids"].tolist(), tokenizer.eos_token_id
    assert [place for place, index in enumerate(ids) if index in tokenizer.all_special_ids and index != end] == []
    assert ids.count(end) == len(TEXTS) + 1 and ids[0] == ids[-1] == end


@pytest.mark.parametrize("backend", [False, True])
def test_a_prompt_that_names_a_special_token_is_read_as_it_is_written(tokenizer, backend):
    encoder = getattr(tokenizer, "backend_tokenizer", tokenizer) if backend else tokenizer
    for text in TEXTS:
        ids = encode_prompt(text, encoder, tokenizer.eos_token_id)
        assert not set(ids) & set(tokenizer.all_special_ids)  # nor the end that ByT5's puts behind all that it encodes
        assert tokenizer.decode(ids) == text


def test_ordinary_text_has_the_tokens_it_always_had(byte_tokenizer, sample_texts, rng):
    for text in rng.sample(sample_texts, 40):
        points = [rng.choice([rng.randrange(0xD800), rng.randrange(0xE000, 0x110000)]) for _ in range(20)]
        for each in (text, "".join(map(chr, points))):
            ids = encode_prompt(each, byte_tokenizer.backend_tokenizer, 0)
            assert ids == byte_tokenizer(each)["input_ids"] == encode_prompt(each, byte_tokenizer, 0)
            assert byte_tokenizer.decode(ids) == each


def test_what_the_vocabulary_lacks_is_counted_and_named(sample_texts, tmp_path, rng, capsys):
    words = Tokenizer(models.BPE(unk_token="<unk>"))
    words.pre_tokenizer, words.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=2000, special_tokens=SPECIAL, show_progress=False)
    words.train_from_iterator(sample_texts, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="</s>", pad_token="<pad>", unk_token="<unk>")
    path, unknown = tmp_path / "글.txt", 0
    documents = [text.replace("\n", " ") for text in sample_texts[:20]]
    for number, text in enumerate(documents):
        for _ in range(rng.randrange(4)):
            place = rng.randrange(len(text) + 1)
            text, unknown = text[:place] + rng.choice("😀😀😀漢") + text[place:], unknown + 1
        documents[number] = text
    path.write_text("\n\n".join(documents), "utf-8")
    context = rng.randint(5, 40)  # many blocks, which share tokens
    for _ in range(2):  # packed, and from the cache
        pack_texts(Texts(train=read_corpus([path])), tokenizer, context, True, OPTIONS, SEEDS)
        (line,) = [line for line in capsys.readouterr().err.splitlines() if "<unk>" in line]
        assert f" {unknown:,}곳의 글자가" in line and "'😀' '漢'" in line, line


def test_a_vocabulary_that_knows_every_byte_has_nothing_to_tell(byte_tokenizer, tmp_path, capsys):
    path = tmp_path / "글.txt"
    path.write_text("\n\n".join(TEXTS), "utf-8")
    pack_texts(Texts(train=read_corpus([path])), byte_tokenizer, 8, True, OPTIONS, SEEDS)
    assert "어휘에 없어" not in capsys.readouterr().err
