"""An .xz file → the bytes in all of its streams."""

import io
import lzma

PADDING = b"\0"  # may stand behind a stream, to fill up blocks


def open_xz(path, mode, **keywords):
    """As lzma.open, but bytes that begin no stream are an error. lzma.open takes them for the end of the file: it loses
    a stream whose header is broken, and text appended behind the last stream, without a word."""
    file = io.BufferedReader(_Streams(io.FileIO(path)))
    return file if "b" in mode else io.TextIOWrapper(file, **keywords)


class _Streams(io.RawIOBase):
    def __init__(self, file):
        self.file, self.stream = file, lzma.LZMADecompressor()

    def readable(self):
        return True

    def readinto(self, buffer):
        data = b""
        while not data:
            more = b""
            if self.stream.eof:
                more = self.stream.unused_data.lstrip(PADDING)
                while not more:
                    if not (read := self.file.read(io.DEFAULT_BUFFER_SIZE)):
                        return 0
                    more = read.lstrip(PADDING)
                self.stream = lzma.LZMADecompressor()
            elif self.stream.needs_input:
                more = self.file.read(io.DEFAULT_BUFFER_SIZE)
                if not more:
                    raise EOFError("the last stream has no end")
            data = self.stream.decompress(more, len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self):
        self.file.close()
        super().close()
