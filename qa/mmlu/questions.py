"""Reads multiple-choice questions from the two forms in which MMLU is spread: the CSV files of hendrycks/test and the parquet files of the Hub's cais/mmlu."""

import csv
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from config.errors import MeasurementError

LETTERS = "ABCD"
ALL = "all"  # the folder in which cais/mmlu keeps the questions of all subjects together
COLUMNS = ("question", "subject", "choices", "answer")
LAYOUTS = "test/SUBJECT_test.csv and dev/SUBJECT_dev.csv, or SUBJECT/test-*.parquet and SUBJECT/dev-*.parquet, or all/test-*.parquet and all/dev-*.parquet"


@dataclass(frozen=True, kw_only=True)
class Question:
    """One question with its four choices and the letter of the right one."""

    text: str
    choices: tuple[str, ...]
    right: str


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Examples and test questions of one subject."""

    name: str  # as in the file's name: "world_capitals"
    examples: tuple[Question, ...]
    questions: tuple[Question, ...]
    first: int = 0  # row of the first of them in the subject's test file

    @property
    def title(self) -> str:
        """The name as a prompt writes it: "world capitals"."""
        return self.name.replace("_", " ")


def load(folder: Path, *, shots: int, questions_per_subject: int | None, start: int = 0) -> list[Subject]:
    """The subjects in `folder`, by name, in either form; what it holds decides which. Of the first so many questions of each, `start` are left out.

    CSV files have no header: question, four choices, letter. Parquet files have the columns question, subject, choices (four texts) and answer (0 to 3);
    subjects in folders of their own come before those in `all`, since a whole copy of cais/mmlu holds every question in both.
    Raises MeasurementError when files are missing, malformed, of both forms, or have too few examples.
    """
    tables = sorted((folder / "test").glob("*_test.csv"))
    parquet = sorted({file.parent for file in folder.glob("*/test-*.parquet")})
    if tables and parquet:
        raise MeasurementError(f"{folder} holds questions as CSV ({tables[0].name}, …) and as parquet ({parquet[0].name}, …). Leave only one of the two there.")
    read = _csv_subjects(folder, tables) if tables else _parquet_subjects(parquet)
    subjects = []
    for name, (dev, test) in sorted(read.items()):
        if len(dev) < shots:
            raise MeasurementError(f"{folder} has {len(dev)} examples (dev) of {name}, fewer than the {shots} shots that the recipe asks for.")
        subjects.append(Subject(name=name, examples=tuple(dev[:shots]), questions=tuple(test[start:questions_per_subject]), first=start))
    if not any(subject.questions for subject in subjects):
        raise MeasurementError(f"{folder} holds no questions: there must be {LAYOUTS} in it.")
    return subjects


def _csv_subjects(folder: Path, files: Sequence[Path]) -> dict[str, tuple[list[Question], list[Question]]]:
    """Examples and questions by subject."""
    names = [file.stem.removesuffix("_test") for file in files]
    return {name: (_read_csv(folder / "dev" / f"{name}_dev.csv"), _read_csv(file)) for name, file in zip(names, files, strict=True)}


def _parquet_subjects(folders: Sequence[Path]) -> dict[str, tuple[list[Question], list[Question]]]:
    """Examples and questions by subject."""
    alone = [folder for folder in folders if folder.name != ALL]
    if alone:
        return {folder.name: ([q for _, q in _read_parquet(folder, "dev")], [q for _, q in _read_parquet(folder, "test")]) for folder in alone}
    found: defaultdict[str, tuple[list[Question], list[Question]]] = defaultdict(lambda: ([], []))
    for folder in folders:
        for part, split in enumerate(("dev", "test")):
            for name, question in _read_parquet(folder, split):
                found[name][part].append(question)
    return found


def _read_csv(file: Path) -> list[Question]:
    questions = []
    try:
        with file.open(encoding="utf-8", newline="") as lines:
            for number, row in enumerate(csv.reader(lines), start=1):
                if len(row) != len(LETTERS) + 2 or row[-1] not in tuple(LETTERS):
                    raise MeasurementError(f"Row {number} of {file} is not a question, four choices and a letter A to D. Correct it.")
                questions.append(Question(text=row[0], choices=tuple(row[1:-1]), right=row[-1]))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise MeasurementError(f"{file} cannot be read: {error}.") from error
    return questions


def _read_parquet(folder: Path, split: str) -> list[tuple[str, Question]]:
    """Each question of a split with its subject, from all the parts that the split is cut into."""
    import pyarrow as pa  # takes a while, and CSV does without it
    from pyarrow import parquet

    found = []
    files = sorted(folder.glob(f"{split}-*.parquet"))
    if not files:
        raise MeasurementError(f"{folder} has no {split}-*.parquet. Copy it from cais/mmlu: examples are in `dev`, questions in `test`.")
    for file in files:
        try:
            with parquet.ParquetFile(file) as part:
                names = part.schema_arrow.names
                rows = part.read(columns=[name for name in COLUMNS if name in names], use_threads=False).to_pylist()
        except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
            raise MeasurementError(f"{file} cannot be read: {error}.") from error
        if missing := [name for name in COLUMNS if name not in names]:
            raise MeasurementError(f"{file} lacks the columns {', '.join(missing)} of cais/mmlu; it has {', '.join(names)}.")
        for number, row in enumerate(rows, start=1):
            found.append((str(row["subject"]), _question(row, f"Row {number} of {file}")))
    return found


def _question(row: dict[str, Any], where: str) -> Question:
    text, choices, answer = row["question"], row["choices"], row["answer"]
    texts = isinstance(text, str) and isinstance(choices, list) and len(choices) == len(LETTERS) and all(isinstance(choice, str) for choice in choices)
    if not texts or not isinstance(answer, int) or answer not in range(len(LETTERS)):
        raise MeasurementError(f"{where} is not a question, a list of four choices and an answer from 0 to 3. Correct it.")
    return Question(text=text, choices=tuple(choices), right=LETTERS[answer])
