"""Documents → token blocks that Trainer can read: tokenised and cached, packed anew in every epoch.

A block is put together from pieces of documents (text/packing.py). A document is read from an end-of-text token on,
and every token of every document, its end included, is predicted exactly once in an epoch; nothing is dropped.
Packed as documents, no piece sees another; packed as a stream, a block is one text. Held-out documents are read each by
itself, however those to learn from are packed.
"""

from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, repeat

import numpy as np

from gpt2_korean.messages import UsageError, say
from gpt2_korean.text.assemble import assemble
from gpt2_korean.text.chat_template import hold_conversations
from gpt2_korean.text.corpus import count_characters, is_stream
from gpt2_korean.text.merges import Merges
from gpt2_korean.text.packing import (
    choose_size,
    plan_documents,
    plan_stream,
    plan_windows,
    plan_windows_alone,
    without_pieces,
)
from gpt2_korean.text.tokens import Buffer, some_rows, token_rows, tokenise
from gpt2_korean.text.unknown import warn_of_unknown

DOCUMENTS, STREAM = "documents", "stream"
NO_BLOCK = -1  # the index of one that teaches nothing
HOW = {DOCUMENTS: "문서마다 따로", STREAM: "이어 붙인 글"}


@dataclass(frozen=True)
class Blocks:
    """The blocks of Texts, None where they are not needed, how many tokens a whole one has, how those to learn from are
    packed, and whether of their conversations all turns are learnt, not the answers alone."""

    train: object
    held_out: object
    size: int
    packing: str = STREAM
    all_learnt: bool = False
    train_characters: int | None = None  # that are learnt, None of a stream
    held_out_characters: int | None = None

    @property
    def train_spends(self):
        """The tokens that are learnt per character that is; None where it is not known."""
        return _ratio(self.train, self.train_characters)

    @property
    def held_out_spends(self):
        """The tokens that are evaluated per character that is; None where it is not known."""
        return _ratio(self.held_out, self.held_out_characters)


def _ratio(blocks, characters):
    return count_targets(blocks) / characters if characters else None


class PackedBlocks:
    """Blocks of Tokens: dicts of `input_ids`, `labels` and, where no piece sees another, `position_ids`, int64 arrays.

    make_plan: `(lengths, room, random) -> Plan`. Block `(epoch + 1) * len(self) + index` is of that epoch's own plan,
    drawn by `seed`; block `index` is of the plan that keeps the order of the text. NO_BLOCK is a token without a
    target. Blocks in the middle of a long question, which teach nothing, are left out.

    merges: Merges that are undone in each block anew, as many as it has room for; None: the tokens stay as they are.
    """

    def __init__(self, tokens, size, make_plan, begin, seed=0, merges=None):
        self.tokens, self.size, self.begin = tokens, size, begin
        self.make_plan, self.seed, self.merges = make_plan, seed, merges
        self.growth = 1 if merges is None else merges.growth(tokens.ids)
        self.room = max(1, int((size - 1) / self.growth))  # for tokens that stand in the text
        self.plan = self._make_plan()
        self.drawn = 0  # which plan it is

    def __len__(self):
        return len(self.plan)

    def __getitem__(self, index):
        if index == NO_BLOCK:
            return {name: values[:1] for name, values in self[self.drawn * len(self)].items()}
        if index < 0:
            raise IndexError(index)
        number, index = divmod(index, len(self))
        if number != self.drawn:
            random = np.random.default_rng((self.seed, number)) if number else None
            self.plan = None  # two at a time would not fit where one does
            self.plan, self.drawn = self._make_plan(random), number
        chosen = slice(*self.plan.starts[index : index + 2])
        offsets = None if self.plan.offsets is None else self.plan.offsets[chosen]
        undo = None
        if self.merges is not None:
            random = np.random.default_rng((self.seed, number, index))
            undo = partial(self.merges.undo, most=self.size - 1, random=random)
        return assemble(self.tokens, self.plan.pieces[chosen], offsets, self.begin, undo)

    def __iter__(self):  # indices go on into the next epoch, so Python's default would never end
        return (self[index] for index in range(len(self)))

    def _make_plan(self, *random):
        plan = self.make_plan(self.tokens.lengths, self.room, *random)
        if self.tokens.learnt is None or plan.offsets is None:  # of a stream, each epoch has others
            return plan
        whole = np.flatnonzero(plan.pieces[:, 3] - plan.pieces[:, 1] == self.room)
        idle = [number for number in whole if not self._teaches(*plan.pieces[number].tolist())]
        return without_pieces(plan, idle) if idle else plan  # without_pieces copies

    def _teaches(self, document, _, fresh, stop):
        learnt = self.tokens.read(document, fresh, stop)[1]
        return learnt is None or learnt.any()

    @property
    def targets(self):
        """How many tokens an epoch predicts, on average where merges are undone."""
        return round(self.tokens.targets * self.growth)


class EpochOrder:
    """The indices of PackedBlocks, epoch after epoch, each with its own plan: a sampler for a DataLoader.

    together: how many blocks the ranks take at a time. Where the last of an epoch are fewer they are filled up with
    NO_BLOCK; accelerate would take the first ones twice. anew: whether each epoch has a plan of its own; if not,
    all keep the order of the text.
    """

    def __init__(self, blocks, together=1, anew=True):
        self.blocks, self.together, self.anew, self.epoch = blocks, together, anew, 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __len__(self):
        return len(self.blocks) + -len(self.blocks) % self.together

    def __iter__(self):
        count = len(self.blocks)
        first = (self.epoch + 1) * count if self.anew else 0
        return chain(range(first, first + count), repeat(NO_BLOCK, len(self) - count))


def pack_texts(texts, tokenizer, context, apart, options, arguments, all_learnt=False):
    """The Blocks of Texts, and say how many they are and what of the texts the vocabulary cannot write.

    context: how many tokens the model can read at a time, None where it sets no limit. options: TextOptions.
    apart: whether it reads the documents of one block each by itself. arguments: TrainingArguments, whose seed draws
    the order. all_learnt: whether of conversations all turns are to be learnt; what counts of those held out is the
    answers all the same. Raises UsageError.
    """
    size = choose_size(options.block_size, context)
    if options.packing == DOCUMENTS and not apart:
        raise UsageError(
            "--packing=documents: 이 모델은 한 블록의 문서들을 따로 읽지 못합니다. --packing=stream을 주세요."
        )
    packing = options.packing or (DOCUMENTS if apart else STREAM)
    windows = plan_windows if apart else plan_windows_alone
    seed = arguments.seed if arguments.data_seed is None else arguments.data_seed
    seed = seed if arguments.train_sampling_strategy == "random" else None
    make_plan = plan_stream if packing == STREAM else partial(plan_documents, reach=context or size)
    all_learnt = all_learnt and hold_conversations(texts.train)
    train = texts.train and pack(texts.train, tokenizer, size, make_plan, all_learnt, seed)
    held_out = texts.held_out and pack(texts.held_out, tokenizer, size, windows)
    counted = count_learnt(texts.train, all_learnt), count_learnt(texts.held_out)
    for name, documents, blocks, characters, how in (
        ("학습 글", texts.train, train, counted[0], HOW[packing]),
        ("평가 글", texts.held_out, held_out, counted[1], HOW[DOCUMENTS]),
    ):
        if blocks is not None:
            say(describe_blocks(name, documents, blocks, characters, how))
            if not is_stream(documents):
                warn_of_unknown(name, documents, blocks.tokens, tokenizer)
    if all_learnt and not options.train_on_prompt:
        say("새 어휘라 대화의 질문에서도 배웁니다(답만 배우려면 --train_on_prompt=false). 평가는 늘 답만 봅니다.")
    return Blocks(train, held_out, size, packing, all_learnt, *counted)


def with_merges_undone(blocks, tokenizer, dropout):
    """`blocks` (Blocks), whose tokens to learn from have each of their merges undone with the chance `dropout`."""
    if not dropout:
        return blocks
    merges, train = Merges(tokenizer, dropout), blocks.train
    train = PackedBlocks(train.tokens, train.size, train.make_plan, train.begin, train.seed, merges)
    say(f"--bpe_dropout={dropout:g}: 토큰이 평균 {train.growth:.2f}배로 나뉘어 한 에폭이 블록 {len(train):,}개입니다.")
    return replace(blocks, train=train)


def pack(documents, tokenizer, size, make_plan, all_learnt=False, seed=None):
    """PackedBlocks of `documents`; of an IterableDataset an IterableDataset of blocks, made as they are asked for.

    seed: draws plans; None: of a stream all stands as it does in the text.
    """
    if not is_stream(documents):
        tokens = tokenise(documents, tokenizer, all_learnt)
        return PackedBlocks(tokens, size, make_plan, tokenizer.eos_token_id, seed or 0)
    import datasets

    arguments = {"documents": documents, "tokenizer": tokenizer, "size": size, "make_plan": make_plan}
    arguments |= {"all_learnt": all_learnt, "seed": seed}
    return datasets.IterableDataset.from_generator(_blocks, gen_kwargs=arguments)


def _blocks(documents, tokenizer, size, make_plan, all_learnt, seed):
    """Yield the blocks of a stream of documents: packed are those that make up a row of Tokens, by a plan of its own
    that is drawn as an epoch's is."""
    for number, row in enumerate(token_rows(documents, tokenizer, all_learnt)):
        drawn, tokens = make_plan, Buffer(row)
        if seed is not None:
            drawn = partial(make_plan, random=np.random.default_rng((seed + number, 1)))
        if number == 0:
            warn_of_unknown("스트리밍으로 읽은 글의 처음", documents, tokens, tokenizer)
        yield from PackedBlocks(tokens, size, drawn, tokenizer.eos_token_id)


def count_learnt(documents, all_learnt=False):
    """How many characters of `documents` are learnt; None of a stream, and where there are none."""
    if documents is None:
        return None
    if not all_learnt:
        return count_characters(documents)
    every, unlearnt = (count_characters(documents, column) for column in ("length", "unlearnt"))
    return every and every - unlearnt


def describe_blocks(name, documents, blocks, characters, how):
    """One line on a packed corpus, and how it is; of an endless stream nothing can be counted."""
    tokens = count_targets(blocks)
    if tokens is None:
        return f"{name}: 스트리밍이라 미리 세지 않습니다."
    return (
        f"{name}: 문서 {len(documents):,}개 · 글자 {characters:,}개 · 토큰 {tokens:,}개"
        f"(글자당 {tokens / characters:.2f}개) · 블록 {len(blocks):,}개({how})"
    )


def count_targets(blocks):
    """How many tokens a model predicts in `blocks`; None for a stream."""
    return getattr(blocks, "targets", None)


def token_stream(blocks, limit):
    """About `limit` tokens in their order, int64 [n]: evenly chosen, or of the first 2,000 blocks of a stream."""
    import torch

    if not hasattr(blocks, "tokens"):
        return torch.cat([torch.as_tensor(block["input_ids"]) for block in blocks.take(2000)])
    return torch.from_numpy(np.concatenate([row["ids"] for row in some_rows(blocks.tokens, limit)]).astype(np.int64))
