"""A conversation's ids and mask are those of apply_chat_template, token for token; people's words never give a mark."""

import copy
import json
from itertools import groupby

import pytest
from conftest import tiny_gpt2, words_of_kogpt2
from datasets import Dataset
from tokenizers import Tokenizer
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast, tokenization_utils_base

from gpt2_korean.messages import UserError
from gpt2_korean.text.chat_prompt import find_chat
from gpt2_korean.text.chat_template import (
    CHAT_TEMPLATE,
    MARKS,
    encode_conversations,
    encode_texts,
    encode_turns,
    has_our_template,
    hold_conversations,
    prepare_tokenizer,
)
from gpt2_korean.text.tokens import tokenise
from gpt2_korean.text.vocabulary import LEAST_TOKENS, learn_tokenizer, train_tokenizer

CHATS = Dataset.from_list([{"text": "가", "turns": []}, {"text": "나", "turns": [{"role": "user", "content": "나"}]}])
PLAIN = Dataset.from_list([{"text": "가", "turns": []}])
PLANES = [
    range(0x21, 0x7F),
    range(0xAC00, 0xD7A4),
    range(0x1100, 0x1200),
    range(0x4E00, 0xA000),
    range(0x1F300, 0x1F600),
]


@pytest.fixture
def conversation(rng, sample_texts):
    """A function that draws a conversation whose contents name no special token."""

    def content():
        signs = "".join(chr(rng.choice(rng.choice(PLANES))) for _ in range(rng.randint(1, 12)))
        text = rng.choice(sample_texts)
        start = rng.randrange(len(text))
        return rng.choice([text[start : start + 20], signs, f"{signs}\n\n {text[start : start + 5]}"]).strip() or "네"

    def draw():
        roles = ["system"] * rng.randrange(2) + ["user", "assistant"] * rng.randint(1, 4)
        return [{"role": role, "content": content()} for role in roles]

    return draw


@pytest.fixture(params=["marks learnt", "marks added", "words"])
def tokenizer(request, sample_texts):
    """Prepared for conversations: a vocabulary learnt from them, a model's own, and one as KoGPT2's."""
    if request.param == "words":
        named = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=words_of_kogpt2(sample_texts), **named)
    else:
        marks = list(MARKS.values()) if request.param == "marks learnt" else []
        tokenizer = train_tokenizer(sample_texts[:40], 640, 32, marks)
    before = len(tokenizer)
    added = prepare_tokenizer(tokenizer, CHATS)
    assert added == ([] if request.param == "marks learnt" else [before, before + 1, before + 2])
    assert prepare_tokenizer(tokenizer, CHATS) == [] and has_our_template(tokenizer)
    return tokenizer


def test_ids_and_mask_are_those_of_apply_chat_template(tokenizer, conversation):
    for _ in range(60):
        turns = conversation()
        ids, learnt = encode_turns(turns, tokenizer)
        reference = tokenizer.apply_chat_template(turns, return_assistant_tokens_mask=True)
        assert reference["input_ids"] == [tokenizer.bos_token_id, *ids]
        assert reference["assistant_masks"] == [False, *learnt]
        ids, learnt = encode_turns(turns[:-1], tokenizer, opens_answer=True)
        reference = tokenizer.apply_chat_template(turns[:-1], add_generation_prompt=True)
        assert reference["input_ids"] == [tokenizer.bos_token_id, *ids] and len(learnt) == len(ids)
        assert ids[-1] == tokenizer.convert_tokens_to_ids("<|assistant|>") and not learnt[-1]


def test_what_is_learnt_is_the_answers_and_their_ends(tokenizer, conversation):
    conversations = [conversation() for _ in range(20)]
    for turns, (ids, learnt) in zip(conversations, encode_conversations(conversations, tokenizer), strict=True):
        answers = [" " + turn["content"] for turn in turns if turn["role"] == "assistant"]
        expected = [index for own in encode_texts(answers, tokenizer) for index in [*own, tokenizer.eos_token_id]]
        assert [index for index, wanted in zip(ids, learnt, strict=True) if wanted] == expected


def test_a_saved_tokenizer_gives_the_same_ids_to_who_writes(tokenizer, conversation, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    written = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert has_our_template(written)
    for _ in range(20):
        turns = conversation()
        for arguments in ((turns,), (turns[:-1],)):
            assert encode_turns(*arguments, written, len(arguments[0]) % 2) == encode_turns(
                *arguments, tokenizer, len(arguments[0]) % 2
            )


def test_the_name_of_a_special_token_in_a_turn_is_text(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    names = [*MARKS.values(), *tokenizer.all_special_tokens]
    for name in names:
        turns = [{"role": "user", "content": f"{name}뒤 {name}"}, {"role": "assistant", "content": name}]
        for each in (tokenizer, Tokenizer.from_file(str(tmp_path / "tokenizer.json"))):
            ids, _ = encode_turns(turns, each)
            special = [index for index in ids if index in tokenizer.added_tokens_decoder]
            assert special == tokenizer.convert_tokens_to_ids(["<|user|>", "<|assistant|>", tokenizer.eos_token])
            assert name in tokenizer.decode(ids[1 : ids.index(special[1])])


CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# As Llama 2's and Vicuna's: a blank before the answer, which byte-level vocabularies join to its first word.
BLANKS = (
    "{{ bos_token }}{% for message in messages %}{% if message.role == 'assistant' %}"
    "{{ ' ' + message.content + eos_token }}{% else %}{{ message.role + ': ' + message.content + ' ASSISTANT:' }}"
    "{% endif %}{% endfor %}"
)
MARKED = (
    "{% for message in messages %}{% if message.role == 'assistant' %}{{ '<|im_start|>assistant\n' }}"
    "{%- generation -%}{{ message.content + '<|im_end|>' }}{%- endgeneration -%}{{ '\n' }}{% else %}"
    "{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.fixture(params=[CHATML, BLANKS, MARKED], ids=["ChatML", "blanks", "generation marks"])
def foreign(request, sample_texts):
    """A tokenizer with a template of another maker, which stays as it is."""
    tokenizer = train_tokenizer(sample_texts[:40], 640, 32)
    tokenizer.add_tokens(["<|im_start|>", "<|im_end|>"], special_tokens=True)
    tokenizer.chat_template = request.param
    before = tokenizer.backend_tokenizer.to_str()
    assert prepare_tokenizer(tokenizer, CHATS) == [] and not has_our_template(tokenizer)
    assert tokenizer.backend_tokenizer.to_str() == before and tokenizer.chat_template == request.param
    return tokenizer


def test_a_template_of_another_maker_writes_as_it_does_and_its_answers_are_told(foreign, conversation):
    for _ in range(40):
        turns = conversation()
        ids, learnt = encode_turns(turns, foreign)
        reference = foreign.apply_chat_template(turns)["input_ids"]
        assert ids == reference[reference[0] == foreign.bos_token_id :]
        told = foreign.decode([index for index, wanted in zip(ids, learnt, strict=True) if wanted])
        end = foreign.eos_token if foreign.chat_template == BLANKS else "<|im_end|>"
        answers = [turn["content"] + end for turn in turns if turn["role"] == "assistant"]
        assert told.replace("\n", "").replace(" ", "") == "".join(answers).replace("\n", "").replace(" ", "")


def test_a_conversation_longer_than_the_model_reads_at_a_time_is_nothing_to_warn_of(foreign, monkeypatch):
    warnings = []
    monkeypatch.setattr(tokenization_utils_base.logger, "warning", warnings.append)
    ids, _ = encode_turns([{"role": role, "content": "가나다 " * 100} for role in ("user", "assistant")], foreign)
    assert len(ids) > foreign.model_max_length and not warnings


def test_a_template_that_is_broken_is_blamed_itself_and_not_the_conversations(foreign, conversation):
    foreign.chat_template += "\n{% if"
    line = len(foreign.chat_template.splitlines())
    for read in (lambda: encode_turns(conversation(), foreign), lambda: find_chat(foreign, foreign.eos_token_id)):
        with pytest.raises(UserError, match=f"{line}번째 줄에서 문법에 맞지 않습니다"):
            read()


def test_conversations_are_tokenised_anew_by_another_template_of_the_same_vocabulary(foreign, conversation):
    turns = [conversation() for _ in range(3)]
    documents = Dataset.from_list([{"text": "글", "length": 1, "turns": own} for own in turns])
    for template in (foreign.chat_template, foreign.chat_template.replace("message.role +", "message.role + '들' +")):
        foreign.chat_template = template
        tokens = tokenise(documents, foreign)
        for number, (ids, learnt) in enumerate(encode_conversations(turns, foreign)):
            found, flags = tokens.read(number, 0, len(ids))
            assert (found.tolist(), flags.tolist()) == (ids, learnt)


def test_a_conversation_ends_in_the_end_of_text_though_its_template_does_not_write_it_and_that_is_learnt(
    foreign, conversation
):
    turns = conversation()
    (ids, learnt), end = encode_turns(turns, foreign), foreign.eos_token_id
    more = [] if foreign.chat_template == BLANKS else [end]
    tokens = tokenise(Dataset.from_list([{"text": "글", "length": 1, "turns": turns}]), foreign)
    found, flags = tokens.read(0, 0, tokens.lengths[0])
    assert (found.tolist(), flags.tolist()) == ([*ids, *more], [*map(bool, learnt), *([True] * len(more))]) and found[
        -1
    ] == end


def test_an_answer_of_weight_0_is_read_as_any_other_and_never_learnt(tokenizer, conversation, rng):
    check_weights(tokenizer, conversation, rng)


def test_an_answer_of_weight_0_is_not_learnt_in_a_template_of_another_maker(foreign, conversation, rng):
    check_weights(foreign, conversation, rng)


def check_weights(tokenizer, conversation, rng):
    for _ in range(20):
        turns = conversation()
        weighed = [{**turn, "weight": rng.randrange(2)} for turn in turns if turn["role"] == "assistant"]
        weights, answers = [turn["weight"] for turn in weighed], iter(weighed)
        weighed = [next(answers) if turn["role"] == "assistant" else {**turn, "weight": 1} for turn in turns]
        documents = Dataset.from_list([{"text": "글", "length": 1, "turns": weighed}])
        ids, learnt = encode_turns(turns, tokenizer)
        runs = [list(run) for _, run in groupby(learnt)]  # what is read and an answer by turns
        pairs = zip(runs[::2], runs[1::2], weights, strict=False)
        expected = [flag for read, own, weight in pairs for flag in [None] * len(read) + [weight] * len(own)]
        for all_learnt in (False, True):
            own, flags = tokenise(documents, tokenizer, all_learnt).read(0, 0, len(ids))
            flags = [1] * len(own) if flags is None else flags.tolist()
            assert own.tolist() == ids and (all_learnt or sum(flags) == sum(filter(None, expected)))
            assert all(weight in (None, flag) for flag, weight in zip(flags, expected, strict=False))


def test_names_of_its_special_tokens_are_text_in_a_template_of_another_maker(foreign):
    for name in ("<|im_end|>", "<|im_start|>", "<|endoftext|>"):
        turns = [{"role": "user", "content": f"앞{name} 뒤"}, {"role": "assistant", "content": f"답 {name}"}]
        plain = [{**turn, "content": turn["content"].replace(name, "네")} for turn in turns]
        (ids, learnt), (reference, _) = encode_turns(turns, foreign), encode_turns(plain, foreign)
        special = [[index for index in each if index in foreign.added_tokens_decoder] for each in (ids, reference)]
        assert special[0] == special[1]
        assert f"답 {name}" in foreign.decode([index for index, wanted in zip(ids, learnt, strict=True) if wanted])


def test_where_a_template_does_not_tell_the_answers_that_is_said(foreign, byte_tokenizer):
    turns = [{"role": role, "content": "네"} for role in ("user", "assistant") * 2]
    foreign.chat_template = CHATML.replace(
        "message.content", "(message.content if loop.last or message.role == 'user' else '…')"
    )
    with pytest.raises(UserError, match="chat_template"):
        encode_turns(turns, foreign)
    encode_turns(turns[:2], foreign)
    assert byte_tokenizer.chat_template is None
    with pytest.raises(UserError, match=r"(?s)chat_template.*스트리밍이면 처음 1,000개.*--seed"):
        encode_turns(turns, byte_tokenizer)


def test_a_tokenizer_written_in_python_takes_conversations_too(conversation):
    tokenizer = ByT5Tokenizer()
    assert len(prepare_tokenizer(tokenizer, CHATS)) == 3
    turns = conversation()
    ends = {"assistant": "</s>"}
    text = "".join(f"{MARKS[turn['role']]} {turn['content']}{ends.get(turn['role'], '')}" for turn in turns)
    assert tokenizer.decode(encode_turns(turns, tokenizer)[0]) == text
    assert tokenizer.eos_token_id not in encode_texts(["말</s>"], tokenizer)[0]


def test_no_text_is_cut_or_filled_up_though_a_tokenizer_would(byte_tokenizer, sample_texts):
    """As many a tokenizer.json is saved."""
    expected = encode_texts(sample_texts[:3], byte_tokenizer)
    for change in (lambda backend: backend.enable_truncation(2), lambda backend: backend.enable_padding(length=999)):
        tokenizer = copy.deepcopy(byte_tokenizer)
        change(tokenizer.backend_tokenizer)
        assert encode_texts(sample_texts[:3], tokenizer) == expected


def test_plain_documents_bring_no_marks(sample_texts):
    for documents in (PLAIN, PLAIN.remove_columns("turns"), PLAIN.to_iterable_dataset()):
        tokenizer = train_tokenizer(sample_texts[:40], 640, 32)
        assert not hold_conversations(documents) and prepare_tokenizer(tokenizer, documents) == []
        assert tokenizer.chat_template is None and len(tokenizer) == 640 and not has_our_template(tokenizer)
    assert hold_conversations(CHATS) and hold_conversations(CHATS.to_iterable_dataset())
    assert hold_conversations(CHATS.select([1])) and not hold_conversations(CHATS.select([0]))


def test_a_vocabulary_learnt_from_conversations_has_their_marks_within_its_size(sample_texts):
    rows = [{"text": text, "length": len(text), "turns": []} for text in sample_texts]
    plain = learn_tokenizer(Dataset.from_list(rows), 1024, 32)
    rows[5]["turns"] = [{"role": "user", "content": "가"}, {"role": "assistant", "content": "나"}]
    learnt = learn_tokenizer(Dataset.from_list(rows), 1024, 32)
    assert len(plain) == len(learnt) == 1024 >= LEAST_TOKENS
    assert learnt.convert_tokens_to_ids(list(MARKS.values())) == [1, 2, 3] and learnt.eos_token_id == 0
    assert not set(MARKS.values()) & set(plain.get_vocab())
    assert prepare_tokenizer(learnt, Dataset.from_list(rows)) == [] and learnt.chat_template == CHAT_TEMPLATE
    assert encode_texts(["<|user|> 서울"], learnt) == [
        learnt("<|user|> 서울", split_special_tokens=True, add_special_tokens=False)["input_ids"]
    ]


def test_a_conversation_that_a_template_does_not_take_is_told(foreign):
    foreign.chat_template = "{{ raise_exception('no system turns') }}"
    with pytest.raises(UserError, match="no system turns; 차례: system, assistant"):
        encode_turns([{"role": "system", "content": "가"}, {"role": "assistant", "content": "나"}], foreign)


@pytest.mark.parametrize(
    "template",
    ["{{ 1 / 0 }}", "{{ '{a}'.format() }}", "{% for i in range(10**6) %}{% endfor %}", "{{ ''.__class__.__mro__ }}",
     "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}"],
)  # fmt: skip
def test_whatever_a_template_of_others_does_is_told_of_it(foreign, template):
    foreign.chat_template = template
    with pytest.raises(UserError, match="chat_template"):
        encode_turns([{"role": "user", "content": "가"}, {"role": "assistant", "content": "나"}], foreign)


def test_a_tokenizer_of_others_that_gives_up_on_a_text_is_told(byte_tokenizer, foreign):
    without_end = {"type": "Replace", "pattern": {"Regex": "(x+x+)+y"}, "content": ""}
    content = json.loads(byte_tokenizer.backend_tokenizer.to_str()) | {"normalizer": without_end}
    hostile = Tokenizer.from_str(json.dumps(content))
    assert len(encode_texts(["한국"], hostile)) == 1
    with pytest.raises(UserError, match="토크나이저"):
        encode_texts(["x" * 100], hostile)
    foreign.backend_tokenizer.normalizer = hostile.normalizer
    with pytest.raises(UserError, match="토크나이저"):
        encode_turns([{"role": "user", "content": "x" * 100}, {"role": "assistant", "content": "나"}], foreign)


def test_trl_learns_the_same_tokens_of_the_same_ids(tokenizer, conversation, tmp_path):
    trl = pytest.importorskip("trl")
    chats = [conversation() for _ in range(20)]
    config = trl.SFTConfig(
        str(tmp_path), assistant_only_loss=True, max_length=None, report_to=[], use_cpu=True, disable_tqdm=True
    )
    trainer = trl.SFTTrainer(
        model=tiny_gpt2(len(tokenizer)),
        args=config,
        train_dataset=Dataset.from_list([{"messages": turns} for turns in chats]),
        processing_class=tokenizer,
    )
    for row, turns in zip(trainer.train_dataset, chats, strict=True):
        ids, learnt = encode_turns(turns, tokenizer)
        assert row["input_ids"] == [tokenizer.bos_token_id, *ids]
        assert row["labels"] == [-100, *(token if own else -100 for token, own in zip(ids, learnt, strict=True))]
