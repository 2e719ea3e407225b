"""Many sequences in one context write what each would write alone."""

from collections import deque
from collections.abc import Sequence
from pathlib import Path

import pytest

from config.errors import MeasurementError
from engines import llama, parallel, tools
from engines.parallel import Job, Sampling, Written
from tests import releases

PROMPTS = ("What is the capital of France?", "List 5 garments.", "What is 7 plus 5?", "Which word means the opposite of bitter?", "Hello", "Once upon a time")


class Asked:
    """Jobs given one after the other, and what came of them by their number."""

    def __init__(self, jobs: Sequence[Job], loathed: int | None = None) -> None:
        self.loathed = loathed
        self.waiting, self.written, self.counted = deque(jobs), dict[object, Written](), 0

    def following(self) -> Job | None:
        return self.waiting.popleft() if self.waiting else None

    def done(self, job: Job, written: Written) -> None:
        self.written[job.of] = written

    def drawn(self, tokens: int) -> None:
        self.counted += tokens

    def spoiled(self, tokens: Sequence[int]) -> bool:
        return self.loathed is not None and self.loathed in tokens


def written(gguf: Path, sampling: Sampling, *, sequences: int, most: int = 24, seed: int = 1) -> dict[object, Written]:
    [found] = all_written(gguf, sampling, seeds=[seed], sequences=sequences, threads=1, most=most)
    return found


def all_written(gguf: Path, sampling: Sampling, *, seeds: Sequence[int], sequences: int, threads: int, most: int = 24) -> list[dict[object, Written]]:
    """What came of the prompts with each seed, a work of its own."""
    with parallel.open_writers(gguf, works=len(seeds), sequences=sequences, length=256, threads=threads) as models:
        assert len(models) == min(len(seeds), threads)
        prompts = [models[0].tokenize(text, add_special=True) for text in PROMPTS]
        works = [Asked([Job(prompt=prompt, most=most, seed=seed + i, of=i) for i, prompt in enumerate(prompts)]) for seed in seeds]
        parallel.write(works, models, sampling=sampling, stop=models[0].vocabulary.end_of_generation)
    for work in works:
        assert work.counted == sum(len(item.tokens) + (item.end is not None) for item in work.written.values())
    return [work.written for work in works]


@pytest.mark.parametrize("sequences", [1, 3, 8])
def test_the_likeliest_tokens_are_those_that_one_sequence_alone_finds(gguf: Path, sequences: int) -> None:
    found = written(gguf, Sampling(temperature=0), sequences=sequences)
    with llama.open_model(gguf, context=256, threads=1) as model:
        stop = model.vocabulary.end_of_generation
        for i, text in enumerate(PROMPTS):
            alone = model.generate(model.tokenize(text, add_special=True), max_tokens=24, stop=stop)
            end = alone[-1] if alone[-1] in stop else None
            assert (list(found[i].tokens), found[i].end) == (alone if end is None else alone[:-1], end), text


def test_a_seed_tells_what_is_drawn(gguf: Path) -> None:
    once, again, other = (written(gguf, Sampling(temperature=1.5), sequences=3, seed=seed) for seed in (1, 1, 100))
    assert once == again
    assert once != other


def test_what_one_work_becomes_is_the_same_whatever_is_written_beside_it(gguf: Path) -> None:
    hot = Sampling(temperature=1.5)
    alone = [written(gguf, hot, sequences=3, seed=seed) for seed in (1, 100, 200)]
    for threads in (1, 2, 3):
        assert all_written(gguf, hot, seeds=(1, 100, 200), sequences=3, threads=threads) == alone


def test_what_sampling_leaves_out_is_never_drawn(gguf: Path) -> None:
    greedy = written(gguf, Sampling(temperature=0), sequences=3)
    for narrow in (Sampling(temperature=2, top_k=1), Sampling(temperature=2, top_p=1e-6), Sampling(temperature=2, min_p=0.999999)):
        assert written(gguf, narrow, sequences=3) == greedy


def test_rows_that_only_pad_the_embeddings_are_never_drawn(gguf: Path, tmp_path: Path) -> None:
    """Also where each is likelier than any token; what is written is what is written without them."""
    tools.convert(releases.padded(tmp_path / "model", loud=True), "--outtype", "bf16", "--outfile", tmp_path / "loud.gguf")
    with llama.open_model(tmp_path / "loud.gguf", context=64, threads=1) as model:
        [likeliest] = model.generate(model.tokenize(PROMPTS[0], add_special=True), max_tokens=1, stop=())
        unused = model.vocabulary.unused
    assert likeliest in unused
    greedy = Sampling(temperature=0)
    assert written(tmp_path / "loud.gguf", greedy, sequences=3) == written(gguf, greedy, sequences=3)
    drawn = {token for item in written(tmp_path / "loud.gguf", Sampling(temperature=2), sequences=3).values() for token in item.tokens}
    assert max(drawn) < min(unused)


def test_a_penalty_on_repetition_changes_what_is_written(gguf: Path) -> None:
    assert written(gguf, Sampling(temperature=0, repetition_penalty=1.8), sequences=3) != written(gguf, Sampling(temperature=0), sequences=3)


def test_an_answer_ends_where_it_may_not_be_longer(gguf: Path) -> None:
    assert {len(item.tokens) for item in written(gguf, Sampling(temperature=2), sequences=4, most=3).values() if item.end is None} == {3}


def test_a_prompt_that_does_not_fit_is_an_error_in_words(gguf: Path) -> None:
    too_long, other = Asked([Job(prompt=[5] * 400, most=2, seed=1)]), Asked([Job(prompt=[5], most=200, seed=1)] * 50)
    with parallel.open_writers(gguf, works=2, sequences=2, length=256, threads=2) as models, pytest.raises(MeasurementError, match="cannot evaluate"):
        parallel.write([other, too_long], models, sampling=Sampling(), stop=())
    assert other.waiting  # nobody waits for what is written beside it


def test_what_is_not_worth_going_on_with_is_broken_off(gguf: Path) -> None:
    with parallel.open_writers(gguf, works=1, sequences=2, length=512, threads=1) as models:
        never = Asked([Job(prompt=[5, 6, 7], most=200, seed=1, of="whole")])
        parallel.write([never], models, sampling=Sampling(temperature=3), stop=())
        whole = never.written["whole"].tokens
        broken = Asked([Job(prompt=[5, 6, 7], most=200, seed=1, of="part")], loathed=whole[40])
        parallel.write([broken], models, sampling=Sampling(temperature=3), stop=())
    part = broken.written["part"]
    assert part.end is None
    first = list(whole).index(whole[40]) + 1
    assert len(part.tokens) == -(-first // parallel.LOOKED_AT) * parallel.LOOKED_AT
    assert list(part.tokens) == list(whole[: len(part.tokens)])
