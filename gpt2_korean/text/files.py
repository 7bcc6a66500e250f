"""Files on disk → raw documents (str, or the row of a conversation), whatever their format, compression and encoding.

Knows nothing of datasets or models: it opens, decodes and parses, one document at a time, and says
which file, line or byte is wrong.
"""

import re
import shlex
from itertools import chain, islice
from unicodedata import normalize

from gpt2_korean.messages import UsageError, UserError, particle, warn
from gpt2_korean.text import kakaotalk
from gpt2_korean.text.folders import name_some
from gpt2_korean.text.opening import Undecodable, check_readable, file_format, guess_encoding, open_lines
from gpt2_korean.text.rows import BEGINNING, cell_text, read_rows
from gpt2_korean.text.turns import BrokenConversation, conversation, turns_reader

COLUMN = re.compile(r"\{([^{}]+)\}")  # a column's name in a --text_template

# A .txt without a single blank line is one document, and one of gigabytes would not fit anywhere: it is
# cut at a line's end. About a hundred blocks of 1,024 tokens, so that a cut is no loss to the training.
LONGEST_DOCUMENT = 100_000
HANGUL = re.compile("[가-힣]")
LONGEST_NAME, MOST_COLUMNS = 100, 20  # letters of a column's name, and names, that a message has
EXPORT_AGAIN = "앱의 언어를 한국어로 바꾸고 다시 내보내 그대로 주세요."
TAKE_OUT = "data/README.md의 짧은 프로그램으로 꺼내거나,"
# In novels every fourth paragraph at least begins so, of reviews, rulings and documentation one of thirty at most.
OPENING_QUOTES, MANY = ('"', "'", "“", "‘", "「", "『", "—"), 50
MANY_LINES = 100  # without a blank one: as many are rarely one article, but reviews or sentences, or else a novel
FIRST_LINES = 20  # lines of a .txt, which may be none
JSON = re.compile(r'[\s\[]*\{\s*"[^"]{1,50}"\s*:')
TAGGED = re.compile(r"\s*<(\?xml|!doctype|html|sami|doc id=)", re.IGNORECASE)
SUBTITLE = re.compile(r"^[\d:]+[.,]\d+ --> ", re.MULTILINE)


def read_documents(path, encoding, sample_by="paragraph", render=None, skip_bad_rows=False, tell=warn, answer_as=None):
    """Yield the raw documents of one file, None for each row that was skipped.

    sample_by: what of a .txt is a document, as datasets calls it: what stands between blank lines ("paragraph"), a
    "line", or the file ("document").
    `encoding` is what `detect_encoding` found (None for parquet); `render(row)` makes a document of a row (dict) of
    any format but .txt and raises what row_renderer says, of which a BrokenConversation is yielded, with its place.
    tell: see delimited_rows. answer_as: see kakaotalk.split_conversations.

    Raises UserError that names the file and the line.
    """
    if path.stat().st_size == 0:
        return  # also as an archive or Parquet, which has more than nothing in it otherwise
    if file_format(path) == ".txt":
        yield from _text_documents(path, encoding, sample_by, tell, answer_as)
        return
    is_there = False  # the column, in a row before: then one without it is a bad row
    rows = read_rows(path, encoding, skip_bad_rows, tell)
    for where, row in rows:
        try:
            yield None if row is None else render(row)
            is_there = is_there or row is not None
        except BrokenConversation as error:
            yield BrokenConversation(f"{path} {where}({error})")
        except KeyError as error:
            if not is_there and is_kakaotalk(path, encoding, tables=True):
                table = [row, *(row for _, row in rows)]
                yield from (None for row in table if row is None)
                yield from _talk(path, kakaotalk.read_table(filter(None, table)), answer_as, tell)
                return
            if not (is_there and skip_bad_rows):
                skip = " 이런 행을 건너뛰려면 --skip_bad_rows를 주세요." if is_there else ""
                raise UserError(f"{missing_column(f'{path}: {where}', error.args[0], row)}{skip}") from None
            yield None
        except TypeError as error:
            raise no_text(f"{path}: {where}", *error.args) from None


def check_first_row(path, encoding, render, skip_bad_rows=False, answer_as=None):
    """Raise the UserError of a file that is not to be read, of the first row of a table, without reading the
    others as far as its format allows, and of a .txt that KakaoTalk exported, where `answer_as` is nobody in it.

    encoding: what the user said of it, or None.
    """
    check_readable(path, str(path))
    kind = file_format(path)
    if kind == ".txt" and not is_kakaotalk(path, encoding):
        return
    found = None if kind == ".parquet" else guess_encoding(path, encoding)
    try:
        if kind in (".json", ".jsonl") and path.stat().st_size > BEGINNING:
            with open_lines(path, found) as lines:
                if kind == ".json" or lines.read(BEGINNING).lstrip().startswith("["):
                    return  # one value, perhaps, which is read whole or not at all
        documents = read_documents(path, found, "paragraph", render, skip_bad_rows, lambda doubt: None, answer_as)
        next(documents, None)  # what is doubtful is told once all is read
    except Undecodable:
        pass  # another encoding, which reading all of it will tell


def is_kakaotalk(path, encoding, tables=False):
    """Whether a file is a .txt that KakaoTalk exported, by its beginning, or a table, if these count.

    encoding: what a user said of it, or None.
    """
    kind = file_format(path)
    if kind != ".txt" and not (tables and kind == ".csv"):
        return False
    try:
        with open_lines(path, guess_encoding(path, encoding)) as lines:
            beginning = list(islice(lines, kakaotalk.HEADER_LINES))
    except Undecodable:
        return False
    return kakaotalk.is_export(beginning) if kind == ".txt" else kakaotalk.is_table(beginning)


def missing_column(where, column, row):
    """The UserError for a column that is not in a `row`, whose cells (None where not known) tell the likeliest one."""
    cells = {name: str(cell) for name, cell in row.items() if cell is not None}
    # Markup has as many syllables as the text in it, but is longer.
    hangul = {name: (len(HANGUL.findall(cell)), -len(cell)) for name, cell in cells.items() if HANGUL.search(cell)}
    likeliest = max(hangul, key=hangul.get, default=None)
    if isinstance(row.get(likeliest), (list, dict)):
        way_on = (
            f"글이 '{likeliest}' 안에 여러 겹으로 들어 있습니다. {TAKE_OUT} 다른 열을 --text_column_name으로 고르세요."
        )
    elif len(likeliest or "") > LONGEST_NAME:
        way_on = "첫 줄이 열 이름이 아니라 글로 보입니다. 첫 줄에 열 이름을 적거나, 글뿐이면 이름을 .txt로 바꾸세요."
    else:
        name = likeliest if re.fullmatch(r"[\w.-]*", likeliest or "") else shlex.quote(likeliest)
        chosen = f"={name}처럼 고르거나 --text_template으로 엮고" if likeliest else "이나 --text_template으로"
        way_on = f"글이라면 --text_column_name{chosen}, 대화라면 --prompt_column과 --answer_column으로 고르세요."
    names = [name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}…" for name in map(str, row)]
    return UserError(f"{where}: '{column}' 열이 없습니다. 있는 열: {name_some(names, MOST_COLUMNS)}\n{way_on}")


def _text_documents(path, encoding, sample_by, tell, answer_as):
    with open_lines(path, encoding) as lines:
        beginning = list(islice(lines := iter(lines), FIRST_LINES))
        lines = chain(beginning, lines)
        if kakaotalk.is_export(beginning):
            lines = list(lines)
            messages = kakaotalk.read_export(lines)
            if any(name for _, name, _ in messages):
                yield from _talk(path, messages, answer_as, tell)
                return
            seems = "카카오톡에서 내보낸 글로 보이지만 누구의 말인지 알아보지 못"
            if answer_as is not None:
                raise UsageError(f"{path}: --answer_as={answer_as}: {seems}합니다. {EXPORT_AGAIN}")
            tell(f"{path}: {seems}해 글 그대로(이름과 시각까지) 배웁니다. {EXPORT_AGAIN}")
        doubt = _doubt(beginning)
        if doubt:
            tell(f"{path}: 글이 아니라 {doubt}")
        if sample_by == "line":
            yield from (line.rstrip("\r\n") for line in lines if not line.isspace())
            return
        if sample_by == "document":
            yield from _split(lines, at_blanks=False)
            return
        count = spoken = short = line_count = 0
        for document in _split(lines, at_blanks=True):
            count, spoken = count + 1, spoken + document.startswith(OPENING_QUOTES)
            short += len(document) < LONGEST_DOCUMENT - len("\r\n")  # a blank line ends it, or the file
            line_count += 1 + document.count("\n")
            yield document
        if count >= MANY and spoken >= count / 10:
            tell(
                f"{path}: 소설처럼 문단마다 빈 줄이 있는 글로 보입니다. 빈 줄마다 따로 떨어진 글로 배우니, "
                "파일 하나가 글 하나라면 --sample_by=document를 주세요."
            )
        if short <= 1 and line_count >= MANY_LINES and not doubt:
            tell(
                f"{path}: 빈 줄이 없어 {line_count:,}줄을 이어진 글로 배웁니다. "
                "줄마다 따로 떨어진 글이라면 --line_by_line을 주세요."
            )


def _split(lines, at_blanks):
    """Yield the documents in `lines`, of LONGEST_DOCUMENT letters and a line at most: what stands between blank lines,
    or all of them (at_blanks=False)."""
    document, size, blanks = [], 0, []
    for line in lines:
        if line.isspace():
            blanks.append(line)
            continue
        if document and ((blanks and at_blanks) or size >= LONGEST_DOCUMENT):
            yield "".join(document).rstrip("\r\n")
            document, size = [], 0
        document += [*blanks, line] if document else [line]
        size += len(line)
        blanks.clear()
    if document:
        yield "".join(document).rstrip("\r\n")


def _talk(path, messages, answer_as, tell):
    """Yield the conversations in the messages of a KakaoTalk export."""
    with_words = [message for message in messages if kakaotalk.has_words(message)]
    try:
        conversations, alone = kakaotalk.split_conversations(with_words, answer_as)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    if alone or len(with_words) < len(messages):
        tell(
            f"{path}: 글이 아닌 것(사진, 이모티콘, 링크, 알림 등) {len(messages) - len(with_words):,}개와 앞에 질문이 "
            f"없거나 뒤에 답이 없는 말 {alone:,}개를 뺍니다."
        )
    for said in conversations:
        yield conversation([(role, text, 1) for role, text in said], f"카카오톡 → {answer_as}")


def _doubt(lines):
    """What a .txt with these first `lines` seems to be, as public corpora and subtitles come, and what to do; None for
    a text."""
    beginning = "".join(line[:LONGEST_DOCUMENT] for line in lines)
    table = _table_format(lines) or (".json" if JSON.match(beginning) else None)
    if table:
        called = particle(table, "으로/로")
        choose = "글의 열이 text가 아니면 --text_column_name으로 고르세요"
        return f"표로 보입니다. 표라면 이름을 {called} 바꾸고, {choose}."
    if TAGGED.match(beginning):
        return "HTML이나 XML로 보입니다. 이대로는 태그까지 배우니, 태그를 지우고 글만 남기세요."
    if SUBTITLE.search(beginning):
        return "자막으로 보입니다. 이대로는 번호와 시각까지 배우니, 그것을 지우고 글만 남기세요."
    return None


def _table_format(lines):
    """The format of a table of a row a line, if its first `lines` are these; None where they are none."""
    if len(lines) < 3:
        return None
    if all(line.startswith("{") and line.rstrip().endswith("}") for line in lines):
        return ".jsonl"
    tabs = {line.strip().count("\t") for line in lines}  # but for those that indent
    return ".tsv" if len(tabs) == 1 and tabs != {0} else None


def no_text(where, column, value):
    """The UserError for a value of `column` that is no text."""
    kind = {list: "목록([...])", dict: "객체({...})"}.get(type(value), "바이트")
    return UserError(
        f"{where}: '{column}' 열의 값은 글이 아니라 {kind}입니다.\n"
        f"그 안의 글을 {TAKE_OUT} --text_column_name 또는 --text_template으로 글이 든 열을 고르세요."
    )


def row_renderer(column=None, template=None, **conversations):
    """The column_renderer of a column or template that was given, else the turns_reader of `conversations`.

    A row's columns may be named in decomposed letters (NFD), as a Mac may give them.
    """
    is_free = column is None and template is None
    render = turns_reader(**conversations) if is_free else column_renderer(column, template)
    return lambda row: render({normalize("NFC", name): cell for name, cell in row.items()})


def column_renderer(column, template=None):
    """`render(row) -> str` of one column, or of a template such as "질문: {Q}" over several; raises as cell_text."""
    if template is None:
        return lambda row: cell_text(row, column)

    def fill(row):
        cells = {name: cell_text(row, name) for name in COLUMN.findall(template)}
        # Spreadsheets end in rows of empty cells, of which the words of the template alone would be learnt.
        return COLUMN.sub(lambda match: cells[match.group(1)], template) if "".join(cells.values()).strip() else ""

    return fill
