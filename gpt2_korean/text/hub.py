"""A data set of the Hugging Face Hub → normalised documents, as a `datasets` table or a stream of them."""

from pathlib import Path

from gpt2_korean.messages import UserError, say, warn
from gpt2_korean.text.cache import hash_code
from gpt2_korean.text.files import missing_column, no_text, row_renderer
from gpt2_korean.text.normalise import EMPTY, NO_TEXT, describe_changes, document_features, document_row
from gpt2_korean.text.turns import ALL_BROKEN, MOST_NAMED, BrokenConversation, describe_conversations

AT_ONCE = 250  # rows in memory: of a thousand novels, as the library has it, gigabytes; short ones take no longer


def read_hub_dataset(name, config=None, *, streaming=False, **columns):
    """The `train` split of a Hugging Face Hub data set (or of a local folder in its layout) as documents.

    columns: what row_renderer takes. Returns a Dataset with the columns of read_corpus, but for those of files, or an
    IterableDataset when streaming. Raises UserError where it cannot be loaded or lacks the column.
    """
    import datasets

    where = f"--dataset_name={name}"
    _check_reach(name, where)
    try:
        rows = datasets.load_dataset(name, config, split="train", streaming=streaming)
        kinds = rows.features or {}
        if any(map(_is_media, kinds.values())):
            rows = rows.select_columns([column for column, kind in kinds.items() if not _is_media(kind)])
        names = rows.column_names or list(next(iter(rows)))
    except StopIteration:
        raise UserError(f"{where}: {NO_TEXT}") from None
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise UserError(
            f"{where}: 불러올 수 없습니다. 이름, --dataset_config_name, 네트워크를(비공개이거나 허락이 필요하면 "
            "HF_TOKEN도) 확인하거나, 글이 든 파일을 내려받아 --dataset_path로 주세요.\n"
            f"({_reason(error.__cause__ or error)})"
        ) from None
    render, features = row_renderer(**columns), document_features()

    def to_documents(batch, indices, code):
        documents = []
        for index, cells in zip(indices, zip(*batch.values(), strict=True), strict=True):
            document, broken_at = None, ""
            try:
                document = document_row(render(dict(zip(batch, cells, strict=True))))
            except BrokenConversation as error:
                broken_at = f"{index + 1:,}번째 행({error})"
            except TypeError as error:
                raise no_text(where, *error.args) from None
            documents.append({**(document or EMPTY), "broken": int(bool(broken_at)), "broken_at": broken_at})
        return {key: [row[key] for row in documents] for key in features}

    try:
        render(dict.fromkeys(names))
    except KeyError as error:
        raise missing_column(where, error.args[0], dict.fromkeys(names)) from None
    # datasets names its cache by a function's code and arguments; our other files count by this argument.
    code = {"code": hash_code()}
    how = {"with_indices": True, "batched": True, "batch_size": AT_ONCE, "fn_kwargs": code}
    documents = rows.map(to_documents, remove_columns=names, features=features, **how)
    return (_whole_stream if streaming else _whole)(documents, where)


def _check_reach(name, where):
    """Raise UserError where the Hub does not answer and nothing of a data set is in the library's cache, with which the
    library else makes do.

    Asked once and at once: the library itself would try six times, half a minute in all.
    """
    import datasets
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError

    if Path(name).exists():
        return
    try:
        huggingface_hub.dataset_info(name, timeout=10)
    except (HfHubHTTPError, ValueError):  # an answer, and what can be no name: the library tells of both
        return
    except Exception as error:  # no route, no name, HF_HUB_OFFLINE: whatever else, the Hub did not answer
        if Path(datasets.config.HF_DATASETS_CACHE, name.replace("/", "___")).exists():
            datasets.config.HF_HUB_OFFLINE = True
            return
        raise UserError(
            f"{where}: 네트워크에 연결할 수 없고 미리 받아 둔 데이터도 없습니다({_reason(error)}).\n네트워크가 되는 "
            "곳에서 받은 캐시(HF_HOME)를 쓰거나, 글이 든 파일을 내려받아 --dataset_path로 주세요."
        ) from None


def _is_media(kind):
    """Whether a column of this feature holds sounds, pictures or the like, which would be decoded with each row."""
    from datasets import Json

    kind = getattr(kind, "feature", kind)  # of a list
    return hasattr(kind, "decode") and not isinstance(kind, Json)


def _whole(documents, where):
    """What of a Dataset has text, and say what was changed and left out."""
    import pyarrow.compute as compute

    table = documents.data.table
    is_whole = compute.not_equal(table["text"], "")
    whole, broken = compute.sum(is_whole).as_py(), compute.sum(table["broken"]).as_py()
    if not whole:
        raise _nothing_left(where, table.filter(compute.not_equal(table["broken_at"], ""))["broken_at"].to_pylist())
    counts = {key: compute.sum(table[key]).as_py() for key in ("composed", "line_ends", "controls")}
    blank = len(documents) - whole - broken
    for line in [*describe_conversations(table), *describe_changes(**counts, blank=blank)]:
        say(f"{where}: {line}")
    if whole == len(documents):
        return documents
    return documents.select(compute.indices_nonzero(is_whole).to_numpy().astype("int64"))


def _whole_stream(documents, where):
    """An IterableDataset whose first conversations that are broken are named as they come; who reads it leaves out what
    has no text, and counts it. Raises UserError where it breaks off."""
    from datasets import IterableDataset

    named = []

    def name_broken(row):
        if row["broken"] and row["broken_at"] not in named and len(named) < MOST_NAMED:
            named.append(row["broken_at"])
            warn(f"{where}: 잘못된 대화를 뺍니다: {row['broken_at']}")
        return True

    arguments = {"documents": documents.filter(name_broken), "where": where}
    documents = IterableDataset.from_generator(_until_broken_off, gen_kwargs=arguments)
    first = next((row for row in documents if row["text"]), None)
    if first is None:
        raise _nothing_left(where, named)
    if first["form"]:
        say(f"{where}: 대화로 읽습니다 ({first['form']})")
    return documents


def _until_broken_off(documents, where):
    try:
        yield from documents
    except (OSError, ValueError, RuntimeError) as error:  # the network's, and rows that do not fit those before them
        raise UserError(
            f"{where}: 스트리밍으로 읽다가 멈췄습니다({_reason(error)}). 네트워크와 데이터를 확인하세요.\n"
            "저장된 체크포인트가 있다면 --resume_from_checkpoint=auto를 더해 이어 갈 수 있습니다."
        ) from error


def _reason(error):
    return " ".join(str(error).split())[:200] or type(error).__name__


def _nothing_left(where, broken):
    reason = ALL_BROKEN.format(", ".join(broken[:MOST_NAMED])) if broken else NO_TEXT
    return UserError(f"{where}: {reason}")
