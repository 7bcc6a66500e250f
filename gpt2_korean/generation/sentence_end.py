"""Where the sentences of a text end, and a text that comes by whole sentences; knows no model.

A sentence ends
- where its line does, but not behind a comma;
- behind . ! ? and closing quotes and brackets after them, where a blank follows, but not behind the point of a number
  ("3.5", "1.", "2026. 5. 1."), a single letter ("A.", at the beginning of a line also "가.") or a title ("Mr.");
- behind … .. and ~ there only after 다, 요, 죠, or with a closing quote or bracket: else they are a pause;
- behind 。 ！ ？ and behind "다." "요." "죠." before Hangul without a blank too, as people often write.
"""

import re

FINAL = ("다", "요", "죠")
MARKS = re.compile(r"""(?P<marks>[.!?…~。！？．]+)(?P<closers>["'”’»」』〉》)）\]］】]*)|(?<!\s)\s*\n""")
NOT_BEFORE_POINT = re.compile(r"(\d|(^|[\s.(])([A-Za-z]|Mr|Mrs|Ms|Dr|Prof|St|No|vs)|\n[ \t]*[가-힣])\Z")


def sentence_ends(text, whole, last=0):
    """Yield how many characters of `text` stand up to the end of each sentence, rising.

    whole: that nothing follows the text; else what stands at its very end may go on, and is no end yet. last: 0, or one
    of the ends, of which only those behind it are looked for.
    """
    for found in MARKS.finditer(text, last):
        line_ends = found["marks"] is None
        end = found.start() if line_ends else found.end()
        is_end = not text.endswith((",", "，", "、"), 0, end) if line_ends else _ends(text, found, whole)
        if end > last and is_end:
            yield end
            last = end


def _ends(text, found, whole):
    marks, before, following = found["marks"], text[max(0, found.start() - 9) : found.start()], text[found.end() :][:1]
    if not following:
        apart = whole
    elif marks == "." and before.endswith(FINAL) and not found["closers"] and "가" <= following <= "힣":
        return True
    else:
        apart = following.isspace() or not set(marks).isdisjoint("。！？")
    if marks == ".":
        return apart and not NOT_BEFORE_POINT.search(before)
    pauses = set(marks) <= set(".…~")
    return apart and (not pauses or before.endswith(FINAL) or bool(found["closers"]))


class SentenceStream:
    """What a TextStream gives, up to the end of a sentence: the first behind `length` tokens, or the last before.

    most: how many tokens there are at most. Where they hold no end at all, the text is that of `length` tokens. What
    the model or a stop text ended is shown whole. Nothing is shown that may yet be cut off: whole sentences alone.
    """

    def __init__(self, stream, length, most):
        self.stream, self.length, self.most = stream, length, most
        self.text, self.tokens, self.shown = "", 0, 0  # shown: characters
        self.at_length = None  # how many characters the text of `length` tokens has
        self.ended, self.stop = None, ""  # as those of a TextStream

    def push(self, new_ids):
        """As TextStream.push."""
        if self.ended:
            return ""
        for index in new_ids:  # one by one, so that it does not matter how many come at once
            self.text += self.stream.push([index])
            self.tokens += 1
            if self.tokens == self.length and not self.stream.ended:
                self.at_length = len(self.text)
        ends = self._ends(whole=False)
        end = self._enough(ends)
        if end is not None:
            self.ended = "sentence"
        elif self.stream.ended:
            end, self.ended, self.stop = len(self.text), self.stream.ended, self.stream.stop
        return self._show(end if self.ended else max(ends, default=0))

    def close(self):
        """As TextStream.close."""
        if self.ended:
            return ""
        self.ended = "end"
        self.text += self.stream.close()
        ends = self._ends(whole=True)
        end = self._enough(ends)
        if end is None:
            cut = self.tokens == self.most
            end = max(ends, default=self.at_length) if cut else len(self.text)
        return self._show(end)

    def _ends(self, whole):
        """The ends from that of what is shown on: those before it are found."""
        return [*filter(None, [self.shown]), *sentence_ends(self.text, whole, self.shown)]

    def _enough(self, ends):
        """The first of `ends` with nothing but blanks from it to `length` tokens, or behind them; None before that."""
        if self.at_length is None:
            return None
        least = len(self.text[: self.at_length].rstrip())
        return next((end for end in ends if end >= least), None)

    def _show(self, end):
        shown, self.shown = self.shown, max(self.shown, end)
        return self.text[shown : self.shown]
