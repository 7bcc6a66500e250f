"""Files → lines of text: what a name says of a file, whatever its compression and character encoding.

Says which file and which byte is wrong; knows nothing of what stands in the lines.
"""

import codecs
import gzip
import io
import lzma
import os
import zlib
from contextlib import suppress
from pathlib import Path

from gpt2_korean.messages import UsageError, UserError, os_reason, particle
from gpt2_korean.text.xz import open_xz

FORMATS = (".txt", ".jsonl", ".json", ".csv", ".tsv", ".parquet")
OPENERS = {".gz": gzip.open, ".xz": lzma.open}
READERS = OPENERS | {".xz": open_xz}  # from its beginning to its end alone
BYTE_ORDER_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
MARKED = {  # codec → the mark that it would read as a character, and the codec that skips the mark
    "utf-8": (codecs.BOM_UTF8, "utf-8-sig"),
    "utf-16-le": (codecs.BOM_UTF16_LE, "utf-16"),
    "utf-16-be": (codecs.BOM_UTF16_BE, "utf-16"),
    "utf-32-le": (codecs.BOM_UTF32_LE, "utf-32"),
    "utf-32-be": (codecs.BOM_UTF32_BE, "utf-32"),
}
DOCUMENTS = {  # what a file begins with that is no text, whatever it was renamed to
    b"PK\3\4": ".zip이나 .docx, .hwpx, .xlsx",
    b"\xd0\xcf\x11\xe0": ".hwp나 .doc, .xls",
    b"%PDF": ".pdf",
}
POINTER = b"version https://git-lfs"
CHUNK = 1 << 20
MOST_NULS = 0.01  # of the characters of a text
LONGEST_LINE = 1 << 26  # characters; a few MB of an archive can hold a line that no memory does


class Undecodable(UserError):
    """A file is not in the encoding that it is read in."""


def file_format(path):
    """`.txt`, `.jsonl`, … of a path, whether compressed or not; None for any other file."""
    suffixes = [suffix.lower() for suffix in Path(path).suffixes]
    if suffixes and suffixes[-1] in OPENERS:
        suffixes.pop()
    return suffixes[-1] if suffixes and suffixes[-1] in FORMATS else None


def check_readable(path, where):
    """Raise UserError that begins with `where` for a file or folder that is for others to read, as safetensors gives
    its files to their owner alone, and for what stands in place of a file that git-lfs has not fetched."""
    needed = os.R_OK | os.X_OK if os.path.isdir(path) else os.R_OK
    if os.path.exists(path) and not os.access(path, needed):
        raise UserError(f"{where}: 읽을 권한이 없습니다. 소유자에게 권한(chmod -R a+rX)을 부탁하거나 다른 것을 주세요.")
    with suppress(OSError), open(path, "rb") as file:
        if file.read(len(POINTER)) == POINTER:
            words = "git-lfs의 자리표시일 뿐 내용이 없습니다. 그 저장소에서 git lfs pull로 받으세요."
            raise UserError(f"{where}: {words}")


def detect_encoding(path, forced=None, way_on="--encoding으로 문자 인코딩을 알려 주세요"):
    """The first of UTF-8, UTF-16 with a byte order mark and CP949 that decodes the whole file strictly.

    `forced` is a codec that is to be it. Returns None for parquet, which says itself. Raises UserError with the
    offset of the first byte that does not fit, and the `way_on`.
    """
    if file_format(path) == ".parquet":
        return None
    with open_file(path, "rb") as file:
        head = file.read(CHUNK)
    if forced:
        encoding = _byte_order(_known(forced), head)
        offset = _first_undecodable(path, encoding)
        if offset is not None:
            _refuse_document(path, head)
            words = particle(f"--encoding={forced}", "으로/로")
            raise UserError(
                f"{path}: {offset}번째 바이트부터 {words} 읽을 수 없습니다. 이 플래그를 빼면 알아서 찾습니다. "
                f"{_way_to_delete(forced)}"
            )
        return encoding
    candidates = [name for mark, name in BYTE_ORDER_MARKS.items() if head.startswith(mark)] or ["utf-8", "cp949"]
    failures = {}
    for name in candidates:
        failures[name] = _first_undecodable(path, name)
        if failures[name] is None:
            return name
    _refuse_document(path, head)
    tried = ", ".join(f"{particle(name, '으로/로')}는 {offset}번째 바이트부터" for name, offset in failures.items())
    likeliest = max(failures, key=failures.get).removesuffix("-sig")  # which iconv does not know
    raise UserError(
        f"{path}: {tried} 읽을 수 없습니다. 글 파일이 맞는지 확인하거나 {way_on}.\n{_way_to_delete(likeliest)}"
    )


def _refuse_document(path, head):
    """Raise UserError for a file of letters that no encoding has, if by its beginning it is another program's."""
    kinds = next((kinds for mark, kinds in DOCUMENTS.items() if head.startswith(mark)), None)
    if kinds:
        way_on = "문서는 그 프로그램에서 .txt나 .csv로 저장하고, .zip은 푸세요."
        raise UserError(f"{path}: 글이 아니라 {kinds} 파일입니다. {way_on}")


def _way_to_delete(encoding):
    """What to do about letters that are broken in a text of this encoding."""
    command = f"iconv -c -f {encoding} -t utf-8 글.txt > 새.txt"
    return f"글의 인코딩이 {encoding}인데 몇 글자만 깨졌거나 끝이 잘렸다면 그 글자를 지우세요: {command}"


def guess_encoding(path, forced=None):
    """What detect_encoding is likely to find, by the beginning of a file alone."""
    with open_file(path, "rb") as file:
        head = file.read(CHUNK)
    if forced:
        return _byte_order(_known(forced), head)
    marked = next((name for mark, name in BYTE_ORDER_MARKS.items() if head.startswith(mark)), None)
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return marked or "cp949"
    return marked or "utf-8"


def _known(encoding):
    """The name of a codec between bytes and text. Raises UsageError for any other."""
    try:
        name = codecs.lookup(encoding).name
        is_text = name not in ("idna", "punycode", "undefined")
    except (LookupError, ValueError):
        raise UsageError(f"--encoding={encoding}: 모르는 인코딩입니다. 예: utf-8, cp949, utf-16") from None
    try:
        b"a".decode(name)
    except LookupError:  # rot13, hex, zlib, …
        is_text = False
    except UnicodeError:  # half a character, perhaps
        pass
    if not is_text:
        raise UsageError(f"--encoding={encoding}: 글의 문자 인코딩이 아닙니다. 예: utf-8, cp949, utf-16")
    return name


def _byte_order(encoding, head):
    """`encoding`, or the codec that leaves the mark out where there is one, or the byte order that gives the likelier
    text where UTF-16 and UTF-32 have none."""
    mark, marked = MARKED.get(encoding, (None, None))
    if mark and head.startswith(mark):
        return marked
    marks = {"utf-16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE), "utf-32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)}
    if encoding not in marks or head.startswith(marks[encoding]):
        return encoding

    def letters(name):
        text = head.decode(name, "ignore")
        return sum(letter.isascii() or "가" <= letter <= "힣" for letter in text)

    return max((f"{encoding}-le", f"{encoding}-be"), key=letters)


def _first_undecodable(path, encoding):
    """Offset of the first byte that `encoding` cannot decode, or of the first of many NULs; None if all is well."""
    decoder = codecs.getincrementaldecoder(encoding)()
    offset = characters = nuls = 0
    first_nul = None
    with open_file(path, "rb") as file:
        while True:
            chunk = file.read(CHUNK)
            pending = len(decoder.getstate()[0])
            try:
                decoded = decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                return offset - pending + error.start
            except UnicodeError:
                return offset
            if "\0" in decoded and first_nul is None:
                first_nul = offset + max(chunk.find(b"\0"), 0)
            characters, nuls = characters + len(decoded), nuls + decoded.count("\0")
            if not chunk:
                # A NUL in a text is a slip, and removed later. Many are a binary file, or UTF-16 without its mark.
                return first_nul if nuls > max(1, MOST_NULS * characters) else None
            offset += len(chunk)


def open_file(path, mode, **keywords):
    """Open a plain or compressed file; what is wrong with it, also later while reading, is a UserError."""
    try:
        # An archive of no bytes at all is an empty file.
        opener = READERS.get(Path(path).suffix.lower(), open) if os.stat(path).st_size else open
        return _Guarded(path, opener(path, mode, **keywords))
    except OSError as error:
        raise UserError(f"{path}: 읽을 수 없습니다 ({os_reason(error)}).") from None


class _Guarded:
    """A file whose read errors name the file: truncated archives fail in the middle, not at the start."""

    def __init__(self, path, file):
        self.path, self.file = path, file

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def read(self, *size):
        return self._call(self.file.read, *size)

    def __iter__(self):
        number = 1
        # Many lines at a time, the last of them to its end: asked for one by one they would take three times as long.
        while chunk := self._call(self.file.read, CHUNK):
            chunk += self._call(self.file.readline, LONGEST_LINE + 1)
            for line in io.StringIO(chunk, newline=""):
                if len(line) > LONGEST_LINE:
                    raise UserError(
                        f"{self.path}: {number}번째 줄이 {LONGEST_LINE:,}자보다 길어 읽을 수 없습니다. 줄을 나누세요."
                    )
                yield line
                number += 1

    def _call(self, read, *size):
        try:
            return read(*size)
        except MemoryError:
            raise UserError(f"{self.path}: 메모리에 담을 수 없을 만큼 큽니다. 파일을 나누세요.") from None
        except UnicodeError:  # it was in that encoding when that was found out; another program writes on, perhaps
            raise Undecodable(f"{self.path}: 읽는 동안 파일이 바뀌었습니다. 다 쓰인 다음에 다시 실행하세요.") from None
        except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
            raise UserError(f"{self.path}: 끝까지 읽을 수 없습니다. 파일이 온전한지 확인하세요 ({error}).") from None


def open_lines(path, encoding):
    # newline="" keeps \r\n as it is: normalisation counts and replaces it later.
    return open_file(path, "rt", encoding=encoding, newline="")
