"""The name of a special token in a person's text is text; only the program itself ends a document."""

import pytest
from conftest import words_of_kogpt2
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from gpt2_korean.text.blocks import pack
from gpt2_korean.text.documents import read_corpus
from gpt2_korean.text.packing import plan_stream
from gpt2_korean.text.prompts import encode_prompt

SPECIAL = ["<s>", "</s>", "<pad>", "<unk>", "<|endoftext|>"]
TEXTS = [f"앞 글{name}뒤의 글, {name} {name}{name}" for name in SPECIAL]


@pytest.fixture(params=["byte-level", "words", "Python"])
def tokenizer(request, byte_tokenizer, sample_texts):
    """As GPT-2's, as KoGPT2's, and one of transformers that is written in Python."""
    if request.param == "byte-level":
        return byte_tokenizer
    if request.param == "Python":
        return ByT5Tokenizer()
    words = words_of_kogpt2(sample_texts, also=SPECIAL[-1:])
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
