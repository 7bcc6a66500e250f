"""New ids, a few at a time → the text they add, in whole characters, up to a stop text."""


class TextStream:
    """The text that continues a prompt, as its tokens come.

    tokenizer: of transformers or of tokenizers; both decode ids.
    stops: texts before the first of which to come whole the continuation ends. lead: what it may begin with and is not
        shown.
    ended: why there is no more to show, as Piece.ended; None before. stop: the stop text that came, if one did.
    """

    def __init__(self, tokenizer, prompt_ids, stops=(), lead=""):
        self.tokenizer, self.stops, self.lead = tokenizer, stops, lead
        # What a token adds can depend on those just before it: a space, the first bytes of a character. So
        # ids are decoded together with the few before them whose text is known (the method of Hugging
        # Face's text-generation-inference), not all anew each time.
        self.ids = list(prompt_ids)
        self.begin, self.known = 0, len(self.ids)
        self.held = ""  # it may be the beginning of a stop text
        self.ended, self.stop = None, ""

    def push(self, new_ids):
        """The text to show after `new_ids`; empty while a character or a stop text may be under way."""
        if self.ended:
            return ""
        self.ids += new_ids
        before = self._decode(self.ids[self.begin : self.known])
        whole = self._decode(self.ids[self.begin :])
        if whole.endswith("\ufffd"):
            return ""
        if len(whole) > len(before):  # else they are special, and what follows would be decoded as the first of a text
            self.begin = self.known
        self.known = len(self.ids)
        return self._before_stop(self._after_lead(whole[len(before) :]))

    def close(self):
        """The rest of the text, when no more ids come; what is then no whole character never becomes one."""
        if self.ended:
            return ""
        before = self._decode(self.ids[self.begin : self.known])
        rest = self._decode(self.ids[self.begin :])[len(before) :].rstrip("\ufffd")
        text = self._before_stop(self._after_lead(rest)) + self.held
        self.ended = "end"
        return text

    def _decode(self, ids):
        return self.tokenizer.decode(ids, skip_special_tokens=True)

    def _after_lead(self, text):
        if text:
            text, self.lead = text.removeprefix(self.lead), ""
        return text

    def _before_stop(self, text):
        text = self.held + text
        # The one that is whole first, however many ids come at once: one around it is not waited for.
        found = [(place + len(stop), place, stop) for stop in self.stops if (place := text.find(stop)) >= 0]
        if found:
            _, place, self.stop = min(found)
            self.ended, self.held = "stop", ""
            return text[:place]
        beginnings = ((stop, range(1, min(len(stop), len(text) + 1))) for stop in self.stops)
        sizes = (size for stop, those in beginnings for size in those if text.endswith(stop[:size]))
        safe = len(text) - max(sizes, default=0)
        self.held = text[safe:]
        return text[:safe]
