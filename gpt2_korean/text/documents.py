"""Files, folders and hub data sets → normalised documents, as a `datasets` table on disk.

The table is cached by the datasets library under a fingerprint of the files and of the code that reads
them, so that a second run on the same text starts at once. Knows nothing of tokens.
"""

import math
import random
from dataclasses import dataclass
from pathlib import Path

from gpt2_korean.messages import UserError, say
from gpt2_korean.text.files import column_renderer, missing_column, no_text, read_documents
from gpt2_korean.text.folders import find_files, name_some
from gpt2_korean.text.normalise import describe_changes, document_row
from gpt2_korean.text.opening import detect_encoding

NO_TEXT = "글이 없습니다. 비었거나 빈칸뿐입니다."


@dataclass(frozen=True)
class Texts:
    """What is learnt from and what is held out to measure on, as lists of files or as documents; None: neither."""

    train: object = None
    held_out: object = None


def find_texts(options):
    """The Texts of `options` (a TextOptions) as lists of files; a data set of the Hub has none. Raises UsageError."""
    train = find_files(options.dataset_path) if options.dataset_path else None
    held_out = find_files(options.validation_file, "--validation_file") if options.validation_file else None
    return Texts(train, held_out)


def read_texts(files, options, evaluates, seed):
    """The Texts of `files` and `options` as documents, and say what was read.

    evaluates: whether some are to be held out where no file of their own is given, by dice of this `seed`. Raises
    UserError for what cannot be read, or is too little.
    """
    columns = {"column": options.text_column_name, "template": options.text_template}
    lines = {"line_by_line": options.line_by_line, "skip_bad_rows": options.skip_bad_rows}
    reading = {"encoding": options.encoding, **lines, **columns}
    train = held_out = None
    if options.dataset_name:
        config = options.dataset_config_name
        train = read_hub_dataset(options.dataset_name, config, streaming=options.streaming, **columns)
    elif files.train:
        train = read_corpus(files.train, **reading)
        say(describe_files(train, files.train))
    if files.held_out:
        held_out = read_corpus(files.held_out, **reading)
        say(describe_files(held_out, files.held_out))
    elif evaluates:
        train, held_out = hold_out(train, options.validation_split_percentage, seed)
    return Texts(train, held_out)


def read_corpus(files, *, encoding=None, line_by_line=False, skip_bad_rows=False, column="text", template=None):
    """The documents of `files` as a datasets.Dataset.

    Columns: text, characters (its length), file (index into `files`), encoding, and what `normalise`
    counted: composed, line_ends, controls; skipped and blank, how many rows before this document (or after the
    last) did not fit their header or had no text. Raises UserError for a file that cannot be read and where
    all files are blank.
    """
    stamps = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    settings = {"encoding": encoding, "line_by_line": line_by_line, "skip_bad_rows": skip_bad_rows}
    settings |= {"column": column, "template": template}
    # A tuple: of a list datasets takes each for a corpus of its own.
    return cached_dataset(_normalised_documents, {"files": tuple(files), **settings}, [stamps, settings])


def cached_dataset(generator, arguments, identity):
    """`generator(**arguments)`, at least one row, as a datasets.Dataset cached under `identity` (anything picklable).

    Raises what the generator raises; nothing half-made stays in the cache.
    """
    import datasets
    from datasets.exceptions import DatasetGenerationError
    from datasets.fingerprint import Hasher

    # The code that makes the rows is part of what they are.
    modules = {generator.__code__.co_filename, *map(str, Path(__file__).parent.glob("*.py"))}
    sources = [Path(module).read_bytes() for module in sorted(modules)]
    fingerprint = Hasher.hash([identity, sources])
    datasets.disable_progress_bars()  # the generators show their own, in their own units
    try:
        return datasets.Dataset.from_generator(generator, gen_kwargs=arguments, fingerprint=fingerprint)
    except DatasetGenerationError as error:
        cause = error.__cause__ or error
        if isinstance(cause, OSError):  # a full disk is told of without its folder
            cause.filename = cause.filename or str(datasets.config.HF_DATASETS_CACHE)
        raise cause from None
    finally:
        datasets.enable_progress_bars()


def _normalised_documents(files, encoding, line_by_line, skip_bad_rows, column, template):
    from tqdm import tqdm

    # Each row waits for the next one, so that the last can tell what was left out after it.
    waiting, left_out = None, {"skipped": 0, "blank": 0}
    with tqdm(desc="글 읽기", unit="문서", unit_scale=True) as progress:
        for index, file in enumerate(files):
            found = detect_encoding(file, encoding)
            for raw in read_documents(file, found, line_by_line, column_renderer(column, template), skip_bad_rows):
                row = None if raw is None else document_row(raw)
                if row is None:
                    left_out["skipped" if raw is None else "blank"] += 1
                    continue
                if waiting:
                    yield {**waiting, **left_out}
                    left_out = {"skipped": 0, "blank": 0}
                progress.update()
                waiting = {**row, "file": index, "encoding": found or "parquet"}
        if waiting is None:
            raise UserError(f"{files[0]}{' 등' if len(files) > 1 else ''}: {NO_TEXT}")
        yield {**waiting, **left_out}


def read_hub_dataset(name, config=None, *, streaming=False, column="text", template=None):
    """The `train` split of a Hugging Face Hub data set (or of a local folder in its layout) as documents.

    Returns a Dataset, or an IterableDataset when streaming. Raises UserError where it cannot be loaded
    or lacks the column.
    """
    import datasets
    import pyarrow.compute

    try:
        rows = datasets.load_dataset(name, config, split="train", streaming=streaming)
        columns = rows.column_names or list(next(iter(rows)))
    except StopIteration:
        raise UserError(f"--dataset_name={name}: {NO_TEXT}") from None
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise UserError(
            f"--dataset_name={name}: 불러올 수 없습니다. 이름, --dataset_config_name, 네트워크를 확인하세요.\n"
            f"({str(error).splitlines()[0]})"
        ) from None
    render = column_renderer(column, template)

    def to_documents(batch):
        rows = (dict(zip(batch, row, strict=True)) for row in zip(*batch.values(), strict=True))
        try:
            documents = [document_row(render(row)) for row in rows]
        except TypeError as error:
            raise no_text(f"--dataset_name={name}", *error.args) from None
        return {
            key: [row[key] for row in documents if row]
            for key in ("text", "characters", "composed", "line_ends", "controls")
        }

    try:
        render(dict.fromkeys(columns))
    except KeyError as error:
        raise missing_column(f"--dataset_name={name}", error.args[0], columns) from None
    documents = rows.map(to_documents, batched=True, remove_columns=columns)
    if next(iter(documents), None) is None:
        raise UserError(f"--dataset_name={name}: {NO_TEXT}")
    if not streaming:
        table = documents.data.table
        counts = {key: pyarrow.compute.sum(table[key]).as_py() for key in ("composed", "line_ends", "controls")}
        for line in describe_changes(**counts, blank=rows.num_rows - documents.num_rows):
            say(f"--dataset_name={name}: {line}")
    return documents


def sample_texts(documents, characters):
    """The texts of a Dataset as a list, evenly chosen where they are longer than about `characters` in all.

    Of an endless IterableDataset, the first 10,000.
    """
    if not hasattr(documents, "num_rows"):
        return [row["text"] for row in documents.take(10_000)]
    step = math.ceil(count_characters(documents) / characters)
    chosen = documents if step == 1 else documents.select(range(0, len(documents), step))
    return [text for batch in chosen.iter(1000) for text in batch["text"]]


def count_characters(documents):
    """The length of all `documents`, None for a stream."""
    import pyarrow.compute

    if not hasattr(documents, "num_rows"):
        return None
    lengths = documents.select_columns("characters").with_format("arrow")[:]["characters"]
    return pyarrow.compute.sum(lengths).as_py()


def hold_out(documents, percentage, seed):
    """Split `documents` into those to train on and those held out, both in their order.

    At least one document is held out. Raises UserError where that would leave none to train on.
    """
    if len(documents) < 2:
        raise UserError(
            "문서가 하나뿐이라 평가용으로 떼어 둘 수 없습니다. --validation_file을 주거나 "
            "빈 줄로(또는 --line_by_line으로) 문서를 나누세요."
        )
    size = min(max(1, round(len(documents) * percentage / 100)), len(documents) - 1)
    held_out = set(random.Random(seed).sample(range(len(documents)), size))
    rest = [index for index in range(len(documents)) if index not in held_out]
    return documents.select(rest), documents.select(sorted(held_out))


def describe_files(documents, files):
    """What was read, a line each: the encoding of the file (or how many have which), and what was normalised."""
    table = documents.data.table.group_by(["file", "encoding"], use_threads=False)
    counted = ("composed", "line_ends", "controls", "blank", "skipped")
    sums = table.aggregate([(name, "sum") for name in counted]).to_pydict()
    if len(files) == 1:
        lines = [f"{files[0]}: {sums['encoding'][0].upper()}"]
    else:
        encodings = sorted(set(sums["encoding"]))
        counts = ", ".join(f"{encoding.upper()} {sums['encoding'].count(encoding):,}개" for encoding in encodings)
        lines = [f"파일 {len(files):,}개: {counts}"]
    empty = [file for index, file in enumerate(files) if index not in set(sums["file"])]
    if empty:
        lines.append(f"글이 없는 파일 {len(empty):,}개: {name_some(empty)}")
    counts = {name.removesuffix("_sum"): sum(column) for name, column in sums.items() if name.endswith("_sum")}
    return "\n".join(lines + describe_changes(**counts))
