"""Tells whether what a model wrote runs in circles."""

from collections.abc import Sequence

LONGEST_LOOP = 64  # tokens in a piece that repeats
LOOP_TIMES = 4  # a piece said so often in a row …
LOOP_TOKENS = 24  # … and so many tokens altogether is a loop: shorter ones occur in lists, sums and tables
ONE_TOKEN = 8  # times in a row, and nothing else in the answer
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


def _longest_run(tokens: Sequence[int], length: int) -> int:
    """Tokens in the longest stretch that repeats its first `length` tokens."""
    longest = current = 0
    for i in range(length, len(tokens)):
        current = current + 1 if tokens[i] == tokens[i - length] else 0
        longest = max(longest, current)
    return longest + length if longest else 0
