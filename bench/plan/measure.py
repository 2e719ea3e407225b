"""Builds files in a temporary folder and measures their divergence in llama.cpp; what is measured is kept in a log, so that a bench goes on where it ended."""

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from builders import quantize
from builders.assemble import Assembler
from builders.rounding import improve
from builders.sensitivity.table import Mix
from config.errors import SluiceError
from engines import llama
from qa import divergence, group, texts

TOGETHER = 8  # files on disk, and models in memory, at a time


@dataclass(frozen=True, kw_only=True)
class Text:
    """Windows of one kind of text."""

    name: str
    windows: texts.Windows
    marks: texts.Marks

    @classmethod
    def of(cls, name: str, folder: Path, context: int) -> "Text":
        """What `qa.texts.prepare` wrote."""
        windows, marks, _ = texts.load(folder, context)
        return cls(name=name, windows=windows, marks=marks)


@dataclass(frozen=True, kw_only=True)
class Source:
    """What every file of one model is made of and compared with."""

    gguf: Path  # the 16-bit file
    imatrix: Path
    statistics: Path  # of `builders.rounding`
    rounding: str  # digest of them and of the method
    texts: tuple[Text, ...]
    context: int
    digest: str  # of all that decides a measurement, the mix apart
    assembler: Assembler  # of `gguf` with the importances of `imatrix`


@dataclass(frozen=True, kw_only=True)
class Case:
    """One file: a stock mix of llama.cpp by name, or a mix of types."""

    stock: str | None = None
    mix: Mix | None = None
    by_tool: bool = False  # written by llama-quantize, as a release would be
    rounded: bool = False  # anew, by `builders.rounding`, as a release would be

    def key(self, source: Source) -> str:
        """What tells its row in the log: the same file measured on the same text."""
        decides = [source.digest, self.stock, self.by_tool, self.mix and sorted(self.mix.items()), *([source.rounding] if self.rounded else [])]
        return hashlib.sha256(json.dumps(decides).encode()).hexdigest()[:24]


Row = Mapping[str, Any]
"""One file: `key`, `bytes`, the seconds of `building` and `scoring`, and for each text `TEXT.kld`, `TEXT.stderr`, `TEXT.same_top` and `TEXT.n`."""


class Log:
    """A JSON Lines file of rows. A line that an interruption tore is left out, and its file measured again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[str, Row] = {}
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
        for line in lines:
            try:
                row = json.loads(line)
            except ValueError:
                continue
            self.rows[row["key"]] = row
        if lines and not lines[-1].endswith("\n"):
            with path.open("a", encoding="utf-8") as file:
                file.write("\n")

    def add(self, row: Row) -> None:
        """Keep a row, at once."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        self.rows[row["key"]] = row


def measure(source: Source, cases: Sequence[Case], log: Log, *, threads: int) -> list[Row]:
    """The rows of `cases`, those that the log lacks measured first. Raises the error of the first file that cannot be built or scored."""
    missing = {key: case for case in cases if (key := case.key(source)) not in log.rows}
    keys = list(missing)
    for start in range(0, len(keys), TOGETHER):
        with tempfile.TemporaryDirectory(prefix="sluice-bench-") as folder:
            part = keys[start : start + TOGETHER]
            built = [build(Path(folder), source, missing[key], key, threads=threads) for key in part]
            started = time.perf_counter()
            scored = score(source, [file for file, _ in built], threads=threads)
            seconds = (time.perf_counter() - started) / len(part)
            for key, (file, building), found in zip(part, built, scored, strict=True):
                log.add({"key": key, "bytes": file.stat().st_size, "building": building, "scoring": seconds, **found})
    return [log.rows[case.key(source)] for case in cases]


def build(folder: Path, source: Source, case: Case, key: str, *, threads: int) -> tuple[Path, float]:
    """The file of a case, and the seconds it took."""
    started = time.perf_counter()
    if case.mix is not None and not case.by_tool:
        source.assembler.write(folder / f"{key}.gguf", case.mix)
        return folder / f"{key}.gguf", time.perf_counter() - started
    if case.mix is None:
        result = quantize.quantize(folder, gguf=source.gguf, imatrix=source.imatrix, type=str(case.stock), name=key, threads=threads)
    else:
        described = folder / f"{key}.json"
        described.write_text(json.dumps(dict(case.mix)), encoding="utf-8")
        result = quantize.mixed(folder, gguf=source.gguf, imatrix=source.imatrix, mix=described, name=key, tag="mix", threads=threads)
    file = folder / str(result["file"])
    if case.rounded:
        (again := folder / f"{key}-rounded").mkdir()
        file = again / str(improve.improve(again, quantized=file, gguf=source.gguf, statistics=source.statistics, threads=threads)["file"])
    return file, time.perf_counter() - started


def score(source: Source, files: Sequence[Path], *, threads: int) -> list[dict[str, float | int]]:
    """The divergence of each file on each text, beside one pass of the 16-bit model."""
    windows = np.concatenate([text.windows for text in source.texts])
    marks = np.concatenate([text.marks for text in source.texts])
    names = np.repeat([text.name for text in source.texts], [len(text.windows) for text in source.texts])
    workers, each = group.shares(threads, len(files))
    with ExitStack() as stack:
        reference, *variants = (stack.enter_context(llama.open_model(file, context=source.context, threads=each)) for file in (source.gguf, *files))
        scored = divergence.compare_all(reference.logits, [variant.logits for variant in variants], windows, scored=marks > 0, workers=workers)
    found = []
    for scores in scored:
        if isinstance(scores, SluiceError):
            raise scores
        row: dict[str, float | int] = {}
        for text in source.texts:
            kld = scores.kld[names == text.name]
            mean, error = divergence.clustered(kld)
            same, _ = divergence.clustered(scores.same_top[names == text.name])
            row |= {f"{text.name}.kld": mean, f"{text.name}.stderr": error or 0.0, f"{text.name}.same_top": same, f"{text.name}.n": int((~np.isnan(kld)).sum())}
        found.append(row)
    return found


@dataclass(frozen=True, kw_only=True)
class Used:
    """What a piece of work took."""

    seconds: float
    cpu_seconds: float


class Stopwatch:
    """Wall time and CPU time, of this process and of the children it has waited for, since it was made."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), _cpu()

    def used(self) -> Used:
        """Since then."""
        return Used(seconds=time.perf_counter() - self._wall, cpu_seconds=_cpu() - self._cpu)


def _cpu() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
