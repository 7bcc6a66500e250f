"""How varied texts are and how much they repeat themselves: counts over characters; knows no model.

Over characters and not tokens or words, so that texts of models with any tokenizer have just as many n-grams
as long as they are as long: distinct-n falls with the number of n-grams, and pairs of Korean words, whose
endings vary, are almost all distinct in any text.
"""

REPEATED = 8  # characters: two or three words, which people seldom write twice within a hundred characters


def measure(texts):
    """Name → value of the measures of `texts`, a list of str, all of the same length."""
    return {
        **{f"distinct_{n}": distinct(texts, n) for n in (1, 2, 3)},
        f"repetition_{REPEATED}": repetition(texts, REPEATED),
    }


def distinct(texts, n):
    """How many of the n-grams of all `texts` together differ, as a share: distinct-n of Li et al. 2016, section 5.1."""
    ngrams = [ngram for text in texts for ngram in _ngrams(text, n)]
    return len(set(ngrams)) / len(ngrams)


def repetition(texts, n):
    """The share of a text's n-grams that stand in it before, on average: seq-rep-n of Welleck et al. 2020, 6.1."""
    return sum(1 - distinct([text], n) for text in texts) / len(texts)


def cut_stretches(texts, count, length):
    """`count` stretches of `length` characters, evenly chosen from `texts` put together; None where there are fewer."""
    whole = "\n".join(texts)
    stretches = [whole[start : start + length] for start in range(0, len(whole) - length + 1, length)]
    if len(stretches) < count:
        return None
    return [stretches[number * len(stretches) // count] for number in range(count)]


def _ngrams(text, n):
    return [text[start : start + n] for start in range(len(text) - n + 1)]
