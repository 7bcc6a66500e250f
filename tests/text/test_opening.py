"""The encodings and archives Korean files come in are read, or refused with the first byte that does not fit."""

import bz2
import codecs
import encodings.aliases
import gzip
import lzma

import pytest

from gpt2_korean.messages import UsageError, UserError
from gpt2_korean.text import opening
from gpt2_korean.text.files import column_renderer, read_documents
from gpt2_korean.text.opening import detect_encoding, guess_encoding

HANGUL = "".join(map(chr, range(0xAC00, 0xD7A4)))
CP949_HANGUL = "가나다라마바사아자차카타파하힣똠펲쀼 한국어 문장을 씁니다.\n"


def random_text(rng, alphabet, length=300):
    return "".join(rng.choice(alphabet) for _ in range(length)).strip() or "가"


@pytest.mark.parametrize(
    ("codec", "detected"),
    [
        ("utf-8", "utf-8"),
        ("utf-8-sig", "utf-8-sig"),
        ("utf-16", "utf-16"),
        ("cp949", "cp949"),
        ("euc-kr", "cp949"),
    ],
)
def test_the_encodings_korean_files_come_in_are_found(tmp_path, rng, codec, detected):
    for number in range(20):
        alphabet = "가나다라마바사아자차카타파하 한국어문장을씁니다.,\n" if codec == "euc-kr" else CP949_HANGUL
        if codec.startswith("utf"):
            alphabet = HANGUL + "abc \n😀漢"
        text = "가" + random_text(rng, alphabet)
        path = tmp_path / f"{number}.txt"
        path.write_bytes(text.encode(codec))
        assert detect_encoding(path) == guess_encoding(path) == detected
        # Python's own decoder is the reference; blank lines separate documents and are not kept.
        lines = [line for line in path.read_bytes().decode(codec).split("\n") if line.strip()]
        read = "\n".join(read_documents(path, detected))
        assert [line for line in read.split("\n") if line.strip()] == lines


def test_a_big_endian_utf16_file_is_found(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xfe\xff" + "한국어".encode("utf-16-be"))
    assert list(read_documents(path, detect_encoding(path))) == ["한국어"]


def test_undecodable_bytes_are_refused_with_name_and_offset(tmp_path, rng):
    for _ in range(20):
        good = ("한국어 " * rng.randint(1, 400_000)).encode()[: rng.randint(1, 2_000_000)]
        good = good.decode("utf-8", "ignore").encode()
        path = tmp_path / "깨진.txt"
        path.write_bytes(good + b"\xff\xff\xff")
        with pytest.raises(UserError) as refusal:
            detect_encoding(path)
        assert "깨진.txt" in str(refusal.value) and f" {len(good)}번째 바이트" in str(refusal.value)


@pytest.mark.parametrize("chunk", [1, 2, 4, 5, 1000])
def test_the_first_byte_that_is_no_text_is_told_wherever_a_chunk_ends(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(opening, "CHUNK", chunk)
    path, text = tmp_path / "a.txt", "가나" * 500
    for broken in (b"\xff", "한".encode()[:2] + b"a", "한".encode()[:2]):
        path.write_bytes(text.encode() + broken)
        with pytest.raises(UserError, match="utf-8로는 3000번째 바이트부터"):
            detect_encoding(path)
    path.write_text(text[:300] + "\0" * 10 + text[300:], "utf-8")  # one of a hundred letters may be a slip
    assert detect_encoding(path) == "utf-8"
    path.write_text(text[:300] + "\0" * 11 + text[300:], "utf-8")
    with pytest.raises(UserError, match="utf-8로는 900번째 바이트부터"):
        detect_encoding(path)


@pytest.mark.parametrize("content", ["한국어".encode("utf-16-le"), bytes(range(256))])
def test_binary_files_are_refused(tmp_path, content):
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    with pytest.raises(UserError, match="바이트부터"):
        detect_encoding(path)


@pytest.mark.parametrize(
    ("beginning", "kind"),
    [(b"PK\x03\x04", ".docx"), (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", ".hwp"), (b"%PDF-1.7\n", ".pdf")],
)
@pytest.mark.parametrize("suffix", [".txt", ".csv", ".txt.gz"])
def test_a_document_that_was_renamed_is_told_as_such_and_not_how_to_delete_its_bytes(tmp_path, beginning, kind, suffix):
    path = tmp_path / f"보고서{suffix}"
    content = beginning + bytes(range(256))
    path.write_bytes(gzip.compress(content) if suffix.endswith(".gz") else content)
    for forced in (None, "utf-8"):
        with pytest.raises(UserError, match=rf"^[^\n]*글이 아니라[^\n]*\{kind}[^\n]*저장하고[^\n]*$"):
            detect_encoding(path, forced)
    path = tmp_path / "글.txt"
    path.write_text("%PDF로 시작하는 글", "utf-8")
    assert detect_encoding(path) == "utf-8"


def test_a_few_broken_letters_are_told_by_their_encoding_and_how_to_delete_them(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("한국어".encode("cp949") + b"\xff\n")
    for forced in (None, "cp949"):
        with pytest.raises(UserError, match=r"(?s)6번째 바이트부터.*iconv -c -f cp949"):
            detect_encoding(path, forced)
    for mark in (b"", codecs.BOM_UTF8):  # whose last letter was cut, as head -c does
        path.write_bytes(mark + "한국어".encode()[:-1])
        with pytest.raises(UserError, match=r"(?s)utf-8.*iconv -c -f utf-8 "):
            detect_encoding(path)


def test_an_encoding_that_was_given_wrongly_need_not_be_given(tmp_path):
    (tmp_path / "a.txt").write_text("한국어", "utf-8")
    with pytest.raises(UserError, match=r"--encoding=cp949.*이 플래그를 빼면 알아서 찾습니다"):
        detect_encoding(tmp_path / "a.txt", "cp949")


def test_a_forced_encoding_is_obeyed_or_refused(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("한국어".encode("johab"))
    assert list(read_documents(path, detect_encoding(path, "johab"))) == ["한국어"]
    with pytest.raises(UserError, match="0번째 바이트"):
        detect_encoding(path, "utf-8")
    with pytest.raises(UsageError, match="--encoding"):
        detect_encoding(path, "no-such")


@pytest.mark.parametrize("size", ["16", "32"])
@pytest.mark.parametrize("order", ["-le", "-be", ""])
def test_a_forced_utf16_is_read_without_a_mark_in_either_order(tmp_path, rng, size, order):
    for _ in range(20):
        text = "가" + random_text(rng, HANGUL + "abc ,\n\n漢😀", rng.randint(1, 300))
        path = tmp_path / "a.txt"
        path.write_bytes(text.encode(f"utf-{size}{order}"))
        for forced in (f"UTF{size}", f"utf_{size}{order}"):
            found = detect_encoding(path, forced)
            assert "\n".join(read_documents(path, found)).split() == text.split()
    path.write_bytes("Korean, in English.".encode(f"utf-{size}{order}"))
    assert list(read_documents(path, detect_encoding(path, f"utf-{size}"))) == ["Korean, in English."]


@pytest.mark.parametrize("codec", ["utf-8", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("find", [detect_encoding, guess_encoding])
def test_a_mark_is_no_part_of_the_first_column_whatever_is_forced(tmp_path, codec, find):
    text, path = "\ufeff글,쪽\n가,1\n", tmp_path / "a.csv"
    path.write_bytes(text.encode(codec) if codec[-2:] in ("le", "be", "-8") else text[1:].encode(codec))
    assert list(read_documents(path, find(path, codec), render=column_renderer("글"))) == ["가"]


@pytest.mark.parametrize(
    "codec", ["hex", "base64", "zlib", "bz2", "uu", "quopri", "rot13", "idna", "punycode", "undefined"]
)
def test_a_codec_that_is_no_text_is_refused_by_name(tmp_path, codec):
    path = tmp_path / "a.txt"
    path.write_text("글", "utf-8")
    with pytest.raises(UsageError, match=f"--encoding={codec}: .*글의 문자 인코딩이 아닙니다"):
        detect_encoding(path, codec)


def test_every_codec_of_the_standard_library_reads_as_python_or_is_refused(tmp_path):
    path = tmp_path / "a.txt"
    for codec in sorted(set(encodings.aliases.aliases.values())):
        path.write_bytes(b"abc")
        try:
            found = detect_encoding(path, codec)
        except UserError as error:
            refusal = str(error)
        else:
            refusal = None
            assert list(read_documents(path, found)) == [b"abc".decode(codec)]
        assert refusal is None or (codec in refusal and len(refusal.splitlines()) == 1)


@pytest.mark.parametrize(
    ("compress", "suffix"), [(gzip.compress, "gz"), (lzma.compress, "xz"), (bz2.compress, "xz"), (bz2.compress, "gz")]
)
def test_a_truncated_spoilt_or_mislabelled_archive_is_refused(tmp_path, compress, suffix, rng):
    path = tmp_path / f"a.txt.{suffix}"
    whole = compress(rng.randbytes(5000).hex().encode())
    for content in (whole[:-1000], whole[:12] + b"\xff" * 5000):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"a\.txt"):
            detect_encoding(path)


@pytest.mark.parametrize(("compress", "suffix"), [(gzip.compress, "gz"), (lzma.compress, "xz")])
def test_an_archive_of_several_parts_is_read_whole_or_refused(tmp_path, compress, suffix, rng):
    path, texts = tmp_path / f"a.txt.{suffix}", [f"{rng.randbytes(size).hex()}\n" for size in (20_000, 3, 20_000)]
    parts = [compress(text.encode()) for text in texts]
    path.write_bytes(b"".join([parts[0], compress(b""), *parts[1:], bytes(20_000)]))  # and zeros, as on tapes
    assert list(read_documents(path, detect_encoding(path), "document")) == ["".join(texts).strip()]
    assert list(read_documents(path, detect_encoding(path), "line")) == [text.strip() for text in texts]
    for last in (b"\xff" + parts[1][1:], "뒤에 적은 글".encode(), parts[1][:-1]):  # no part, or not to its end
        path.write_bytes(parts[0] + last)
        with pytest.raises(UserError, match=r"a\.txt\..*끝까지 읽을 수 없습니다"):
            detect_encoding(path)


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.csv"])
def test_a_file_that_is_written_on_while_it_is_read_is_told_as_such(tmp_path, name):
    path = tmp_path / name
    path.write_text('{"text": "가"}\n' if name == "a.jsonl" else "text\n가\n", "utf-8")
    found = detect_encoding(path)
    with path.open("ab") as file:
        file.write("나".encode()[:2])
    with pytest.raises(UserError, match="읽는 동안 파일이 바뀌었습니다"):
        list(read_documents(path, found, render=column_renderer("text")))


@pytest.mark.parametrize("chunk", [1, 2, 7, 100])
def test_lines_are_those_of_python_wherever_a_chunk_ends(tmp_path, rng, monkeypatch, chunk):
    monkeypatch.setattr(opening, "CHUNK", chunk)
    for number in range(40):
        path = tmp_path / f"{number}.txt"
        text = "".join(rng.choice(["가", "나다 ", "\r", "\n", "\r\n", "\x85", "\u2028", "\x0b"]) for _ in range(number))
        path.write_bytes(text.encode())
        with opening.open_lines(path, "utf-8") as lines, path.open(encoding="utf-8", newline="") as expected:
            assert list(lines) == list(expected)
