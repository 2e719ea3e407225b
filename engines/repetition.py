"""Tells whether what a model wrote runs in circles, and while it writes, whether it will not come out of one."""

from collections.abc import Sequence

LONGEST_LOOP = 64  # tokens in a piece that repeats
LOOP_TIMES = 4  # a piece said so often in a row …
LOOP_TOKENS = 24  # … and so many tokens altogether is a loop: shorter ones occur in lists, sums and tables
ONE_TOKEN = 8  # times in a row, and nothing else in the answer
LOST_TIMES = 4  # a piece of any length said so often in a row at the end …
LOST_TOKENS = 256  # … and so many tokens altogether is a loop that a greedy answer does not leave
LOST_EVERY = 32  # tokens, an answer is looked at for that
NGRAM = 6  # tokens
NGRAM_FROM = 96  # tokens in an answer before its n-grams are counted
NGRAM_SHARE = 0.5  # of the n-grams occurred before: an answer that goes in circles with small changes


def repetitions(tokens: Sequence[int]) -> list[str]:
    """A piece repeated in a row at any place, one token for instance, or else too many n-grams that occurred before."""
    for length in range(1, min(LONGEST_LOOP, len(tokens) // LOOP_TIMES) + 1):
        run = _longest_run(tokens, length)
        if run >= max(LOOP_TIMES * length, LOOP_TOKENS):
            what = "token" if length == 1 else f"{length} tokens"
            return [f"repeats the same {what} {run // length} times in a row"]
    if length := lost(tokens):
        return [f"repeats the same {length} tokens to its end"]
    if len(tokens) >= ONE_TOKEN and len(set(tokens)) == 1:
        return [f"is one token, said {len(tokens)} times"]
    share = repetition(tokens)
    if len(tokens) >= NGRAM_FROM and share > NGRAM_SHARE:
        return [f"goes in circles ({share:.0%} of its runs of {NGRAM} tokens occurred before, {NGRAM_SHARE:.0%} are allowed)"]
    return []


def repetition(tokens: Sequence[int]) -> float:
    """Share of the n-grams that occurred before in the same answer, 1 - distinct / all (seq-rep-n, arXiv 1908.04319); 0 in one too short to have any."""
    ngrams = [tuple(tokens[i : i + NGRAM]) for i in range(len(tokens) - NGRAM + 1)]
    return 1 - len(set(ngrams)) / len(ngrams) if ngrams else 0.0


def lost(tokens: Sequence[int]) -> int:
    """The length of the piece that an answer ends in so often that it is lost in it; 0 where it is not, and but at every LOST_EVERY tokens.

    Each time that a piece is said makes the next time likelier (Holtzman et al., arXiv 1904.09751, figure 4): so far in, a greedy answer does not come out.
    """
    if len(tokens) % LOST_EVERY:
        return 0
    for length in range(1, len(tokens) // LOST_TIMES + 1):
        if tokens[-1] == tokens[-1 - length]:
            same = max(LOST_TOKENS, LOST_TIMES * length) - length
            if same + length <= len(tokens) and tokens[-same:] == tokens[-same - length : -length]:
                return length
    return 0


def _longest_run(tokens: Sequence[int], length: int) -> int:
    """Tokens in the longest stretch that repeats its first `length` tokens."""
    longest = current = 0
    for i in range(length, len(tokens)):
        current = current + 1 if tokens[i] == tokens[i - length] else 0
        longest = max(longest, current)
    return longest + length if longest else 0
