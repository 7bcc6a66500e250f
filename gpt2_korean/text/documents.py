"""Files, folders and hub data sets → normalised documents, as a `datasets` table on disk. Knows nothing of tokens."""

import random
from dataclasses import dataclass

from gpt2_korean.messages import UsageError, UserError, say
from gpt2_korean.text.cache import MOST_ROWS, cached_dataset, when_changed
from gpt2_korean.text.corpus import CHANGES, MOST_CHARACTERS
from gpt2_korean.text.files import check_first_row, is_kakaotalk, read_documents, row_renderer
from gpt2_korean.text.folders import find_files, leave_out, name_some
from gpt2_korean.text.hub import read_hub_dataset
from gpt2_korean.text.normalise import NO_TEXT, describe_changes, document_features, document_row
from gpt2_korean.text.opening import detect_encoding, file_format
from gpt2_korean.text.turns import ALL_BROKEN, MOST_NAMED, BrokenConversation, describe_conversations

NONE_LEFT_OUT = {"skipped": 0, "blank": 0, "broken": 0, "broken_at": "", "doubt": ""}
NONE_FITS = "형식이 맞지 않는 행 {:,}개를 건너뛰니 남은 글이 없습니다. --skip_bad_rows를 빼면 까닭이 나옵니다."
NONE_LEFT = "배울 것이 남지 않았습니다."
LOOKED_AT = 1000  # files, before anything is read


@dataclass(frozen=True)
class Texts:
    """What is learnt from and what is held out to measure on, as lists of files or as documents; None: neither."""

    train: object = None
    held_out: object = None

    @property
    def main(self):
        """Those to learn from, or held out where there are no others."""
        return self.held_out if self.train is None else self.train


def find_texts(options):
    """The Texts of `options` (a TextOptions) as lists of files; a data set of the Hub has none.

    Raises UsageError for files that are not there and flags that are not for files of their kind, UserError for empty
    ones and tables whose first row already cannot be read.
    """
    train = find_files(options.dataset_path) if options.dataset_path else None
    held_out = find_files(options.validation_file, "--validation_file") if options.validation_file else None
    if train and held_out:
        train = leave_out(held_out, train)
    every = [*(train or ()), *(held_out or ())]
    _check_columns(options, {file_format(file) for file in every})
    columns = _columns(options)
    are_free = not any(columns.values())
    if options.answer_as is not None and not any(is_kakaotalk(file, options.encoding, are_free) for file in every):
        raise UsageError(
            f"--answer_as={options.answer_as}: 카카오톡에서 내보낸 파일이 아닙니다. 이 플래그를 빼거나, "
            "카카오톡의 ‘대화 내용 내보내기’로 받은 .txt(Mac은 .csv)를 그대로 주세요."
        )
    render = row_renderer(**columns)
    for files in filter(None, (train, held_out)):
        if not any(file.stat().st_size for file in files):
            raise UserError(f"{name_some(files)}: {NO_TEXT}")
    for file in every[:LOOKED_AT]:
        check_first_row(file, options.encoding, render, options.skip_bad_rows, options.answer_as)
    return Texts(train, held_out)


def _check_columns(options, formats):
    """Refuse what is said of columns where neither a file, whose `formats` these are, nor the Hub's data set has any,
    and of lines likewise."""
    flags = ("text_column_name", "text_template", "prompt_column")
    flag = next((name for name in flags if getattr(options, name) is not None), None)
    if flag and formats == {".txt"} and not options.dataset_name:
        way_on = "표라면 이름의 .txt를 .tsv나 .csv, .jsonl로 바꾸고, 글이라면 이 플래그를 빼세요"
        raise UsageError(f"--{flag}: .txt에는 열이 없습니다. {way_on}.")
    if options.sample_by != "paragraph" and ".txt" not in formats:
        flag = "--sample_by=line(--line_by_line)" if options.sample_by == "line" else "--sample_by=document"
        raise UsageError(f"{flag}: .txt에만 쓰입니다. 표는 행마다 문서 하나이니 이 플래그를 빼세요.")


def read_texts(files, options, evaluates, seed):
    """The Texts of `files` and `options` as documents, and say what was read.

    evaluates: whether some are to be held out where no file of their own is given, by dice of this `seed`. Raises
    UserError for what cannot be read, or is too little.
    """

    def read(files):
        names = ("encoding", "sample_by", "skip_bad_rows", "answer_as")
        documents = read_corpus(files, **{name: getattr(options, name) for name in names}, **_columns(options))
        say(describe_files(documents, files))
        return documents

    train = held_out = None
    if options.dataset_name:
        config = options.dataset_config_name
        train = read_hub_dataset(options.dataset_name, config, streaming=options.streaming, **_columns(options))
    elif files.train:
        train = read(files.train)
    if files.held_out:
        held_out = read(files.held_out)
    elif evaluates:
        train, held_out = hold_out(train, options.validation_split_percentage, seed)
    return Texts(train, held_out)


def _columns(options):
    """What row_renderer takes of TextOptions."""
    return {
        "column": options.text_column_name,
        "template": options.text_template,
        "prompt_column": options.prompt_column,
        "answer_column": options.answer_column,
    }


def read_corpus(files, *, encoding=None, sample_by="paragraph", skip_bad_rows=False, answer_as=None, **columns):
    """The documents of `files` as a datasets.Dataset. columns: what row_renderer takes; the others: see read_documents.

    Columns: text and its length, turns (of a conversation; else an empty list), form (what was recognised as one; else
    empty), characters (how many of the text are learnt, of a conversation the answers'), unlearnt (how many are turns'
    of weight 0), file (index into `files`), encoding, and what `normalise` counted: composed, line_ends, controls;
    skipped, blank and broken, how many rows after this document (and before the first) did not fit their header, had no
    text or were no whole conversation; broken_at, where the first of those stand; doubt, what a user should know of a
    file that ends here. Raises UserError for a file that cannot be read and where all files are blank.
    """
    stamps = [(str(file.resolve()), *when_changed(file)) for file in files]
    lines = {"sample_by": sample_by, "skip_bad_rows": skip_bad_rows, "answer_as": answer_as}
    settings = {"encoding": encoding, **lines, "columns": columns}
    features = document_features(file="int64", encoding="string", skipped="int64", blank="int64", doubt="string")
    arguments = {"files": files, "schema": features.arrow_schema, **settings}
    return cached_dataset(_normalised_documents, arguments, [stamps, settings], features)


def _normalised_documents(files, schema, encoding, sample_by, skip_bad_rows, answer_as, columns):
    """Yield Tables of the rows of read_corpus, in order."""
    import pyarrow
    from tqdm import tqdm

    render = row_renderer(**columns)
    # The last row waits for the next one, so that it can tell what was left out after it.
    rows, characters, left_out = [], 0, dict(NONE_LEFT_OUT)
    with tqdm(desc="글 읽기", unit="문서", unit_scale=True) as progress:
        for index, file in enumerate(files):
            found = detect_encoding(file, encoding)
            place, doubts = {"file": index, "encoding": found or "parquet", **NONE_LEFT_OUT}, []
            for raw in read_documents(file, found, sample_by, render, skip_bad_rows, doubts.append, answer_as):
                if isinstance(raw, BrokenConversation):
                    left_out["broken"] += 1
                    if left_out["broken"] <= MOST_NAMED:
                        left_out["broken_at"] = _with_line(left_out["broken_at"], raw)
                    continue
                row = None if raw is None else document_row(raw)
                if row is None:
                    left_out["skipped" if raw is None else "blank"] += 1
                    continue
                if rows and left_out != NONE_LEFT_OUT:
                    rows[-1].update(left_out)
                    left_out = dict(NONE_LEFT_OUT)
                # A table of a single row datasets would hold back until it had MOST_ROWS of them.
                if len(rows) == MOST_ROWS or (len(rows) > 1 and characters >= MOST_CHARACTERS):
                    yield pyarrow.Table.from_pylist(rows, schema)
                    progress.update(len(rows))
                    rows, characters = [], 0
                row.update(place)
                rows.append(row)
                characters += row["length"]
            for doubt in doubts:
                left_out["doubt"] = _with_line(left_out["doubt"], doubt)
        if not rows:
            broken_at = left_out["broken_at"].replace("\n", ", ")
            if left_out["doubt"] and not (broken_at or left_out["skipped"]):
                raise UserError(f"{NONE_LEFT}\n{left_out['doubt']}")
            reason = NONE_FITS.format(left_out["skipped"]) if left_out["skipped"] else NO_TEXT
            raise UserError(ALL_BROKEN.format(broken_at) if broken_at else f"{name_some(files)}: {reason}")
        progress.update(len(rows))
        rows[-1].update(left_out)
        yield pyarrow.Table.from_pylist(rows, schema)


def _with_line(lines, line):
    """Both as a table of UTF-8 can hold them, which a file's name in CP949 is not, as old archives have them."""
    return f"{lines}\n{line}".lstrip().encode("utf-8", "backslashreplace").decode()


def hold_out(documents, percentage, seed):
    """Split `documents` into those to train on and those held out, both in their order.

    At least one document is held out. Raises UserError where that would leave none to train on.
    """
    import numpy

    if len(documents) < 2:
        raise UserError(
            "문서가 하나뿐이라 평가용으로 떼어 둘 수 없습니다. --validation_file을 주거나 "
            "빈 줄로(또는 --line_by_line으로) 문서를 나누세요."
        )
    size = min(max(1, round(len(documents) * percentage / 100)), len(documents) - 1)
    is_held_out = numpy.zeros(len(documents), bool)
    is_held_out[random.Random(seed).sample(range(len(documents)), size)] = True
    # Arrays, since datasets hashes the indices to name its cache, and lists would take long.
    return documents.select(numpy.flatnonzero(~is_held_out)), documents.select(numpy.flatnonzero(is_held_out))


def describe_files(documents, files):
    """What was read, a line each: the encoding of the file (or how many have which), what was normalised, and what is
    doubtful of the first files where something is."""
    import pyarrow.compute as compute

    table = documents.data.table.group_by(["file", "encoding"], use_threads=False)
    counted = (*CHANGES[:-1], "skipped")  # the last, those that are broken, are told among the conversations
    sums = table.aggregate([(name, "sum") for name in counted]).to_pydict()
    if len(files) == 1:
        lines = [f"{files[0]}: {sums['encoding'][0].upper()}"]
    else:
        encodings = sorted(set(sums["encoding"]))
        counts = ", ".join(f"{encoding.upper()} {sums['encoding'].count(encoding):,}개" for encoding in encodings)
        lines = [f"파일 {len(files):,}개: {counts}"]
    with_text = set(sums["file"])  # made once: there may be hundreds of thousands of files
    empty = [file for index, file in enumerate(files) if index not in with_text]
    if empty:
        lines.append(f"글이 없는 파일 {len(empty):,}개: {name_some(empty)}")
    counts = {name.removesuffix("_sum"): sum(column) for name, column in sums.items() if name.endswith("_sum")}
    doubts = documents.data.table["doubt"]
    doubts = "\n".join(doubts.filter(compute.not_equal(doubts, "")).to_pylist()).splitlines()
    told = [f"주의: {doubt}" for doubt in doubts[:MOST_NAMED]]
    if len(doubts) > len(told):
        told.append(f"주의: 이런 파일이 모두 {len(doubts):,}개 있습니다.")
    return "\n".join(lines + describe_conversations(documents.data.table) + describe_changes(**counts) + told)
