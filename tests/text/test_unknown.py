"""What a vocabulary cannot write of the texts that are learnt is told, wherever its unknown token is named, or not."""

import copy
from types import SimpleNamespace

import pytest
from conftest import words_of_kogpt2
from datasets import Dataset
from transformers import PreTrainedTokenizerFast

from gpt2_korean.text.blocks import pack, pack_texts
from gpt2_korean.text.corpus import CHANGES
from gpt2_korean.text.documents import Texts, read_corpus
from gpt2_korean.text.packing import plan_stream

OPTIONS = SimpleNamespace(block_size=None, packing=None, train_on_prompt=False)
SEEDS = SimpleNamespace(seed=0, data_seed=None, train_sampling_strategy="random")


def words_of(texts, unknown="<unk>", **named):
    """A tokenizer as KoGPT2's, in whose tokenizer.json `unknown` stands for what it lacks."""
    words = words_of_kogpt2(texts, unknown)
    return PreTrainedTokenizerFast(tokenizer_object=words, eos_token="</s>", pad_token="<pad>", **named)


@pytest.mark.parametrize("named", [{"unk_token": "<unk>"}, {}])
def test_what_the_vocabulary_lacks_is_counted_and_named(named, sample_texts, tmp_path, rng, capsys):
    tokenizer, path, unknown = words_of(sample_texts, **named), tmp_path / "글.txt", 0
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


def test_characters_for_which_no_token_stands_are_named(tmp_path, capsys):
    path = tmp_path / "글.txt"
    path.write_text("좋은 😀 아침", "utf-8")
    tokenizer = words_of(["좋은 아침"], unknown=None)
    pack_texts(Texts(train=read_corpus([path])), tokenizer, 8, True, OPTIONS, SEEDS)
    assert "글자가 어휘에 없어 빠졌습니다('😀' 등)" in capsys.readouterr().err


def test_what_the_vocabulary_lacks_of_a_stream_is_counted(capsys):
    row = {"text": "좋은 😀 아침", "turns": [], **dict.fromkeys(CHANGES, 0)}
    stream = Dataset.from_list([row] * 3).to_iterable_dataset()
    list(pack(stream, words_of(["좋은 아침"]), 8, plan_stream))
    assert " 3곳의 글자가 어휘에 없어 <unk>로 바뀌었습니다." in capsys.readouterr().err


def test_a_vocabulary_that_knows_every_byte_has_nothing_to_tell(byte_tokenizer, tmp_path, capsys):
    path = tmp_path / "글.txt"
    path.write_text("옛 글\u200b 😀\n\n漢字 <unk>", "utf-8")
    tokenizer = copy.deepcopy(byte_tokenizer)
    tokenizer.unk_token = tokenizer.eos_token  # as GPT-2's own has it; one ends each text
    pack_texts(Texts(train=read_corpus([path])), tokenizer, 8, True, OPTIONS, SEEDS)
    assert "어휘에 없어" not in capsys.readouterr().err
