import csv
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from config.errors import MeasurementError
from config.words import Measurement
from engines import hf, llama, llama_server
from engines.model import Message
from qa import mmlu
from qa.divergence import spread
from tests.qa.conftest import DATA, Release

TINY = DATA / "tiny_mmlu"


@dataclass
class Characters:
    """A model whose tokens are characters; it prefers the letters in `answers`, one prompt after another, and keeps what it was asked."""

    context: int = 100_000
    answers: str = "A"
    asked: list[str] = field(default_factory=list)

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool = True) -> list[int]:
        return [1] * add_special + [ord(character) for character in text]

    def detokenize(self, tokens: Sequence[int]) -> str:
        return "".join(map(chr, tokens))

    def logits(self, tokens: Sequence[int], first: int) -> np.ndarray:
        raise NotImplementedError

    def generate(self, prompt: Sequence[int], *, max_tokens: int, stop: Collection[int]) -> list[int]:
        raise NotImplementedError

    def continuations(self, prefix: Sequence[int], suffixes: Sequence[Sequence[int]]) -> np.ndarray:
        rows = np.zeros((len(suffixes), 128), dtype=np.float32)
        for row, suffix in zip(rows, suffixes, strict=True):
            row[ord(self.answers[len(self.asked) % len(self.answers)])] = 5
            self.asked.append(self.detokenize([*prefix, *suffix]))
        return rows


def write(folder: Path, name: str, dev: list[list[str]], test: list[list[str]]) -> None:
    for split, rows in (("dev", dev), ("test", test)):
        (folder / split).mkdir(exist_ok=True)
        with (folder / split / f"{name}_{split}.csv").open("w", newline="") as file:
            csv.writer(file).writerows(rows)


def rows(*rights: str) -> list[list[str]]:
    return [[f"Question {i}?", "w", "x", "y", "z", right] for i, right in enumerate(rights)]


def test_the_prompt_is_word_for_word(tmp_path: Path) -> None:
    write(tmp_path, "some_subject", [['Which "one",\nexactly?', " a", "b,c", "", "d", "B"]], [["And this?", "1", "2", "3", "4", "C"]])
    model = Characters()
    mmlu.ask(model, mmlu.load(tmp_path, shots=1, questions_per_subject=None))
    header = "\x01The following are multiple choice questions (with answers) about some subject.\n\n"
    example = 'Which "one",\nexactly?\nA.  a\nB. b,c\nC. \nD. d\nAnswer: B\n\n'
    assert model.asked == [header + example + "And this?\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer:"]


def test_loads_what_the_recipe_asks_for() -> None:
    subjects = mmlu.load(TINY, shots=5, questions_per_subject=7)
    assert len(subjects) == 8
    assert {len(subject.examples) for subject in subjects} == {5}
    assert {len(subject.questions) for subject in subjects} == {7}
    assert len(mmlu.load(TINY, shots=0, questions_per_subject=None)[0].questions) == 100
    for few, more in zip(subjects, mmlu.load(TINY, shots=5, questions_per_subject=12, start=5), strict=True):
        assert (more.first, len(more.questions), more.questions[:2]) == (5, 7, few.questions[5:])


def test_malformed_data_is_named(tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match="holds no questions"):
        mmlu.load(tmp_path, shots=0, questions_per_subject=None)
    write(tmp_path, "s", rows("A"), [["q", "1", "2", "3", "A"]])
    with pytest.raises(MeasurementError, match=r"Row 1 of .*s_test\.csv"):
        mmlu.load(tmp_path, shots=1, questions_per_subject=None)
    for letter in ("", "AB", "E"):
        write(tmp_path, "s", rows("A"), rows(letter))
        with pytest.raises(MeasurementError, match=r"Row 1 of .*s_test\.csv"):
            mmlu.load(tmp_path, shots=1, questions_per_subject=None)
    write(tmp_path, "s", rows("A"), rows("A"))
    with pytest.raises(MeasurementError, match="1 examples .* of s, fewer than the 5"):
        mmlu.load(tmp_path, shots=5, questions_per_subject=None)
    (tmp_path / "dev" / "s_dev.csv").unlink()
    with pytest.raises(MeasurementError, match=r"s_dev\.csv cannot be read"):
        mmlu.load(tmp_path, shots=0, questions_per_subject=None)


def parquet_of(folder: Path, names: Sequence[str], into: Callable[[str], str]) -> None:
    """The bundled questions as cais/mmlu lays them out, `into` the folder of each subject."""
    for split in ("dev", "test"):
        found: dict[str, list[dict[str, object]]] = {}
        for name in names:
            with (TINY / split / f"{name}_{split}.csv").open(newline="") as file:
                for text, *choices, letter in csv.reader(file):
                    found.setdefault(into(name), []).append({"question": text, "subject": name, "choices": choices, "answer": "ABCD".index(letter)})
        for place, lines in found.items():
            (folder / place).mkdir(exist_ok=True)
            half = len(lines) // 2
            parts = (lines[:half], lines[half:]) if split == "test" else (lines,)
            for i, part in enumerate(parts):
                parquet.write_table(pa.Table.from_pylist(part), folder / place / f"{split}-0000{i}-of-0000{len(parts)}.parquet")


def test_parquet_holds_the_same_questions(tmp_path: Path) -> None:
    asked = {"shots": 5, "questions_per_subject": 60}
    expected = mmlu.load(TINY, **asked)
    parquet_of(tmp_path, [subject.name for subject in expected], lambda name: "all")
    assert mmlu.load(tmp_path, **asked) == expected
    parquet_of(tmp_path, [subject.name for subject in expected], lambda name: name)  # as in a whole copy of the repo, which has both
    (tmp_path / "auxiliary_train").mkdir()
    assert mmlu.load(tmp_path, **asked) == expected


def test_malformed_parquet_is_named(tmp_path: Path) -> None:
    parquet_of(tmp_path, ["calendar"], lambda name: name)
    folder = tmp_path / "calendar"
    good = {"question": "q", "subject": "s", "choices": ["1", "2", "3", "4"], "answer": 0}
    for bad, message in (
        ({"answer": 4}, "Row 2 of .* an answer from 0 to 3"),
        ({"choices": ["1", "2"]}, "Row 2 of .* a list of four choices"),
        ({"question": None}, "Row 2 of .* is not a question"),
    ):
        parquet.write_table(pa.Table.from_pylist([good, good | bad]), folder / "test-00000-of-00002.parquet")
        with pytest.raises(MeasurementError, match=message):
            mmlu.load(tmp_path, shots=0, questions_per_subject=None)
    parquet.write_table(pa.Table.from_pylist([{"question": "q"}]), folder / "test-00000-of-00002.parquet")
    with pytest.raises(MeasurementError, match="lacks the columns subject, choices, answer"):
        mmlu.load(tmp_path, shots=0, questions_per_subject=None)
    (folder / "test-00000-of-00002.parquet").write_bytes(b"PAR1 is not all that it takes")
    with pytest.raises(MeasurementError, match=r"test-00000-of-00002\.parquet cannot be read"):
        mmlu.load(tmp_path, shots=0, questions_per_subject=None)
    (folder / "dev-00000-of-00001.parquet").unlink()
    with pytest.raises(MeasurementError, match=r"has no dev-\*\.parquet"):
        mmlu.load(tmp_path, shots=0, questions_per_subject=None)


def test_both_forms_of_files_in_one_folder_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "s", rows("A"), rows("A"))
    parquet_of(tmp_path, ["calendar"], lambda name: name)
    with pytest.raises(MeasurementError, match="Leave only one of the two"):
        mmlu.load(tmp_path, shots=0, questions_per_subject=None)


def tagged(messages: Sequence[Message]) -> str:
    return "".join(f"<{message['role']}>{message['content']}</>" for message in messages) + "<assistant>"


def test_conversations_are_word_for_word(tmp_path: Path) -> None:
    write(tmp_path, "some_subject", [["Which? ", "1", "2", "3", "4", "B"]], [["And this?", "w", "x", "y", "z", "C"]])
    model, subjects = Characters(), mmlu.load(tmp_path, shots=1, questions_per_subject=None)
    for form in (mmlu.chat, mmlu.llama):
        mmlu.ask(model, subjects, form(tagged, ""))
    header = "The following are multiple choice questions (with answers) about some subject.\n\n"
    choose = "Given the following question and four candidate answers (A, B, C and D), choose the best answer.\nQuestion: "
    end = '\nYour response should end with "The best answer is [the_answer_letter]" where the [the_answer_letter] is one of A, B, C or D.'
    chat = f"\x01<user>{header}Which? \nA. 1\nB. 2\nC. 3\nD. 4\nAnswer:</><assistant>B</><user>And this?\nA. w\nB. x\nC. y\nD. z\nAnswer:</><assistant>"
    best = (
        f"\x01<user>{choose}Which?\nA. 1\nB. 2\nC. 3\nD. 4{end}</><assistant>The best answer is B.</>"
        f"<user>{choose}And this?\nA. w\nB. x\nC. y\nD. z{end}</><assistant>The best answer is"
    )
    assert model.asked == [chat, best]


def test_conversations_are_the_same_in_both_engines(clean: Release) -> None:
    subjects = mmlu.load(TINY, shots=2, questions_per_subject=2)
    tokenizer = hf.load_tokenizer(clean.model)
    with llama.open_model(clean.gguf, context=1024, threads=1, sequences=8) as model, llama_server.serve(clean.gguf, threads=1) as server:
        bos = model.vocabulary.piece(model.vocabulary.bos)
        for make in (mmlu.chat, mmlu.llama):
            form = make(partial(server.apply_template, add_generation_prompt=True), bos)
            theirs = make(partial(hf.render_chat, tokenizer, add_generation_prompt=True), bos)
            for subject in subjects:
                tokens = form.tokens(model, form.write(subject, subject.questions[0], 2))
                assert tokens == hf.encode(tokenizer, theirs.write(subject, subject.questions[0], 2), add_special=True)
                assert tokens.count(model.vocabulary.bos) == 1
            given, remarks = mmlu.ask(model, subjects, form)
            assert (len(given), remarks) == (16, [])


def test_both_ways_to_write_a_letter_count(clean: Release) -> None:
    with llama.open_vocabulary(clean.gguf) as vocabulary:
        letters = mmlu.letter_tokens(vocabulary)
        assert [{vocabulary.detokenize([token]) for token in tokens} for tokens in letters] == [{letter, f" {letter}"} for letter in "ABCD"]
    logits = np.full(2048, -20, dtype=np.float32)
    logits[letters[0]] = [1.0, 1.0]
    logits[letters[1]] = [1.5, -20.0]  # likelier than either A, less likely than both together
    assert mmlu.choose(logits, letters) == "A"
    assert mmlu.choose(logits - 1000, letters) == "A"
    assert mmlu.choose(logits, [tokens[:1] for tokens in letters]) == "B"


def test_examples_are_dropped_until_a_prompt_fits(tmp_path: Path) -> None:
    write(tmp_path, "s", rows("A", "B", "C"), [*rows("A"), ["long " * 20, "w", "x", "y", "z", "A"], ["longer " * 60, "w", "x", "y", "z", "A"]])
    subjects = mmlu.load(tmp_path, shots=3, questions_per_subject=None)
    model = Characters(context=len(mmlu.HENDRYCKS.write(subjects[0], subjects[0].questions[0], 3)) + 1)
    answers, remarks = mmlu.ask(model, subjects)
    assert [(answer.question, answer.shots) for answer in answers] == [(0, 3), (1, 0)]
    assert all(len(prompt) <= model.context for prompt in model.asked)
    assert len(remarks) == 2
    assert remarks[0].startswith("1 questions were asked with fewer examples")
    assert remarks[1].startswith("1 questions were left out")
    with pytest.raises(MeasurementError, match="No question fits"):
        mmlu.ask(Characters(context=10), subjects)


def test_a_single_question_and_no_example(tmp_path: Path) -> None:
    write(tmp_path, "s", [], rows("D"))
    answers, remarks = mmlu.ask(Characters(answers="D"), mmlu.load(tmp_path, shots=0, questions_per_subject=None))
    assert (answers[0].correct, remarks) == (True, [])


def answers(chosen: str, right: str) -> list[mmlu.Answer]:
    return [mmlu.Answer(subject="s", question=i, right=r, chosen=c, single=c, shots=5) for i, (c, r) in enumerate(zip(chosen, right, strict=True))]


def test_accuracy_has_an_error_even_when_all_is_right() -> None:
    half = mmlu.accuracy(answers("AB" * 50, "AA" * 50))
    assert (half.value, half.n) == (0.5, 100)
    assert half.stderr == pytest.approx(0.05)
    assert mmlu.accuracy(answers("A" * 3, "A" * 3)).stderr == pytest.approx((0.8 * 0.2 / 3) ** 0.5)


def test_flips_go_both_ways() -> None:
    before, after = answers("AABCD", "AAAAA"), answers("BAACC", "AAAAA")
    difference, flips, share, wins, losses, p = mmlu.against(before, after)
    assert difference.value == 0
    assert difference.stderr == pytest.approx((4 / 7 / 5) ** 0.5)  # two flips and one more either way, of five answers and two more
    assert flips.value == 2
    assert (share.name, share.value, share.stderr) == ("flips.share", 0.4, pytest.approx((3 / 7 * 4 / 7 / 5) ** 0.5))
    assert (wins.value, losses.value, p.value, p.n) == (1, 1, 1, 2)
    assert flips.details == ("1 from right to wrong, 1 from wrong to right; 3 of 5 answers changed at all",)


def test_paired_answers_are_matched_by_question() -> None:
    before = answers("ABCD", "AAAA")
    assert mmlu.against(before, before[::-1])[1].value == 0
    with pytest.raises(MeasurementError, match="3 questions and the 16-bit model 4"):
        mmlu.against(before, before[:3])


# McNemar's exact test as published in textbooks and by R's binom.test(won, won + lost): p = 2 * pbinom(min, n, 1/2).
@pytest.mark.parametrize(
    ("won", "lost", "p"), [(0, 0, 1), (1, 1, 1), (3, 3, 1), (0, 5, 0.0625), (2, 8, 0.109375), (8, 2, 0.109375), (1, 9, 0.021484375), (0, 2000, 0)]
)
def test_mcnemar_is_exact(won: int, lost: int, p: float) -> None:
    assert mmlu.mcnemar(won, lost) == pytest.approx(p, abs=1e-15)


def of(subject: str, chosen: str, right: str, single: str = "") -> list[mmlu.Answer]:
    return [replace(answer, subject=subject, single=one) for answer, one in zip(answers(chosen, right), single or chosen, strict=True)]


def test_macro_counts_each_subject_alike() -> None:
    given = of("small", "AA", "AA") + of("large", "AB" * 9, "AA" * 9)
    micro, macro = mmlu.accuracy(given), mmlu.macro(given)
    assert (micro.value, macro.value, macro.n) == (11 / 20, 0.75, 20)
    even = of("one", "AB" * 50, "AA" * 50) + of("two", "AB" * 50, "AA" * 50)
    assert mmlu.macro(even).stderr == pytest.approx(mmlu.accuracy(even).stderr)
    perfect = of("one", "A" * 50, "A" * 50) + of("two", "A" * 50, "A" * 50)
    assert mmlu.macro(perfect).stderr == pytest.approx(mmlu.accuracy(perfect).stderr)


def test_answers_are_kept_in_a_character_for_each_question() -> None:
    before = of("two", "BB", "AA") + of("one", "AAAA", "AAAA")
    after = of("two", "AB", "AA", single="AA") + of("one", "AABA", "AAAA")
    kept = mmlu.encode(before, [answer for answer in after if answer.question != 1][::-1] + [answer for answer in after if answer.question == 1])
    assert kept == {"one": "7727", "two": "54"}
    assert mmlu.by_subject(kept | {"none": "."}) == {
        "one": {"questions": 4, "right": 3, "reference": 4, "wins": 0, "losses": 1},
        "two": {"questions": 2, "right": 1, "reference": 0, "wins": 1, "losses": 0},
        "none": {"questions": 0, "right": 0, "reference": 0, "wins": 0, "losses": 0},
    }
    rows = [0, 2]
    assert mmlu.encode([before[row + 2] for row in rows], [after[row + 2] for row in rows]) == {"one": "7.2"}
    with pytest.raises(MeasurementError, match="cannot be paired"):
        mmlu.encode(before, after[1:])


def test_questions_move_figures_by_what_their_errors_are_made_of() -> None:
    """Without the one more question either way that `qa.mmlu` adds, the errors are those of plain means."""
    generator = np.random.default_rng(3407)
    kept = {subject: "".join(generator.choice(list("01234567"), size=size)) for subject, size in (("one", 300), ("two", 500))}
    kept["two"] += "."
    moved = mmlu.influences(kept)
    ours, theirs = (np.array([int(c) >> bit & 1 for c in "".join(kept.values()) if c != "."]) for bit in (0, 1))
    assert np.isnan(moved["mmlu.difference"]).tolist() == [False] * 800 + [True]
    for name, values in (("mmlu.accuracy", ours), ("mmlu.difference", ours - theirs), ("flips.share", ours != theirs)):
        assert spread(moved[name]) == pytest.approx(values.std(ddof=1) / 800**0.5), name
    both = math.hypot(*(part.std() / len(part) ** 0.5 for part in (ours[:300], ours[300:]))) / 2
    assert spread(moved["mmlu.macro"]) == pytest.approx(both, rel=0.01)


def test_answers_to_more_questions_stand_beside_those_to_fewer() -> None:
    assert mmlu.aligned({"one": "77", "two": "1"}, {"one": "7.73", "three": "0"}) == (
        {"one": "77..", "three": ".", "two": "1"},
        {"one": "7.73", "three": "0", "two": "."},
    )


def test_what_the_second_token_of_a_letter_changes() -> None:
    measured = mmlu.single_letter(of("s", "AABA", "AAAA", single="ABBC"))
    assert measured.value == 0.25
    assert measured.details == ("counting both tokens of each letter changes the score by +50.00 points and the choice in 2 of 4 questions",)


# Published for Gemma 3 27B with QAT weights: score, GB, efficiency; then QAT Q4_0 of four sizes. Sizes are rounded, hence the tolerance.
PUBLISHED = [
    (43.37, 6.06, 3.03), (47.23, 6.51, 3.42), (56.57, 7.31, 4.32), (64.47, 8.96, 4.40), (67.60, 9.78, 4.35), (67.77, 9.95, 4.30), (67.07, 10.07, 4.18),
    (69.77, 12.51, 3.58), (69.50, 12.76, 3.49), (71.00, 15.41, 2.98), (71.07, 15.64, 2.94), (71.23, 17.95, 2.58), (71.60, 20.64, 2.26), (71.53, 26.74, 1.74),
    (70.64, 17.2, 2.65), (26.12, 0.93, 1.20), (55.13, 2.94, 10.26), (67.07, 7.52, 5.59), (70.64, 16.05, 2.84),
]  # fmt: skip


@pytest.mark.parametrize(("score", "gigabytes", "published"), PUBLISHED)
def test_efficiency_reproduces_the_published_table(score: float, gigabytes: float, published: float) -> None:
    share = Measurement(name="mmlu.accuracy", value=score / 100, unit="share", stderr=0.01, n=100)
    measured = mmlu.efficiency(share, round(gigabytes * 1e9))
    assert measured.value == pytest.approx(published, abs=0.015)
    assert measured.stderr == pytest.approx(1 / gigabytes)


def test_the_bundled_model_knows_its_questions(clean: Release) -> None:
    with llama.open_model(clean.gguf, context=2048, threads=1, sequences=8) as model:
        given, remarks = mmlu.ask(model, mmlu.load(TINY, shots=5, questions_per_subject=10))
    assert (mmlu.accuracy(given).value, len(given), remarks) == (1.0, 80, [])
