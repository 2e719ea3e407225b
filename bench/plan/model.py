"""Prepares one model for the bench: fixed, converted, calibrated, its sensitivities measured; each step is done once for a folder and its cost kept."""

import hashlib
import json
import random
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.models import world
from bench.plan.measure import Source, Stopwatch, Text, Used
from builders import calibrate, convert, fixes, plan
from builders.assemble import Assembler
from builders.rounding import improve
from builders.sensitivity import importances, measure, probes
from builders.sensitivity.table import Mix, Sensitivity
from config.digests import content_digest, file_sha256
from engines.model import Floats
from qa import texts

ROOT = Path(__file__).parents[2]
DATA = ROOT / "demo" / "data"
MODELS = {"llama": ROOT / "demo" / "model", "gemma3": ROOT / "bench" / "models" / "gemma3", "mixtral": ROOT / "bench" / "models" / "mixtral"}
CALIBRATION: dict[str, list[Path]] = {"chat": [DATA / "calibration.jsonl"], "plain": [DATA / "calibration_questions.txt"]}
HELD_OUT: dict[str, list[Path]] = {"chat": [DATA / "evaluation.jsonl"], "plain": [DATA / "evaluation_questions.txt"]}
IMATRIX_TOKENS = 40_000
PROBE_TOKENS = 8_192  # of the calibration text, for measured probes


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the bench was asked for, as far as a model's preparation depends on it."""

    context: int
    tokens: int  # of each evaluation text
    calibration_tokens: int  # at most, of the sensitivity pass
    other: Path | None
    threads: int
    drawn: int = 0  # conversations more in the held-out text


@dataclass(frozen=True, kw_only=True)
class Done:
    """The result of a step, where its files are, and what it took."""

    folder: Path
    result: dict[str, Any]
    used: Used


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """One model, ready to be quantized and measured."""

    name: str
    folder: Path
    model: Path  # the fixed safetensors
    source: Source  # held-out text
    calibration: Source  # the same, with calibration text: what probes may see
    sensitivity: Sensitivity
    importances: dict[str, Floats]
    pass_: Done  # of the sensitivities
    parameters: int
    threads: int

    def probed(self) -> Done:
        """The table by probes through llama.cpp, which stands in where transformers cannot run a model."""
        given: dict[str, Any] = {"model": self.model, "gguf": self.source.gguf, "imatrix": self.folder / "imatrix" / calibrate.RESULT, **CALIBRATION}
        given |= {"tokens": IMATRIX_TOKENS, "context": self.source.context, "threads": self.threads}
        return once(self.folder / "probes", lambda out: probes.measure(out, **given))

    def planned(self, size: str) -> tuple[Mix, Done]:
        """The mix for the bytes of a stock file, and what planning it took."""
        done = once(
            self.folder / f"plan-{size}",
            lambda out: plan.plan(
                out,
                sensitivity=self.pass_.folder,
                gguf=self.source.gguf,
                imatrix=self.source.imatrix,
                budget={"like": size},
                profile="any",
                rules={},
                threads=self.threads,
            ),
        )
        mix: Mix = json.loads((done.folder / "mix.json").read_text(encoding="utf-8"))
        return mix, done


def once(folder: Path, work: Callable[[Path], dict[str, Any]]) -> Done:
    """The result of a step that fills `folder`; one that was done before is read. The record beside it is written last, so a folder that has one is whole."""
    record = folder.with_name(f"{folder.name}.done.json")
    if not record.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        stopwatch = Stopwatch()
        result = work(folder)
        record.write_text(json.dumps({"result": result, "used": asdict(stopwatch.used())}), encoding="utf-8")
    content = json.loads(record.read_text(encoding="utf-8"))
    return Done(folder=folder, result=content["result"], used=Used(**content["used"]))


def prepare(name: str, work: Path, settings: Settings) -> Prepared:
    """Everything of one model under a folder of `work` that is named by what decides its content."""
    versions = [module.VERSION for module in (fixes, convert, calibrate, measure, plan, texts)]
    decides = [content_digest(MODELS[name]), versions, settings.context, settings.calibration_tokens, digests(CALIBRATION)]
    folder = work / f"{name}-{hashlib.sha256(json.dumps(decides).encode()).hexdigest()[:12]}"
    threads, context = settings.threads, settings.context
    model = once(folder / "fixed", lambda out: fixes.repair(out, snapshot=MODELS[name], repo=f"upstream/{name}", fixes=True)).folder
    base = once(folder / "base", lambda out: convert.convert(out, model=model, name=name))
    gguf = base.folder / str(base.result["file"])
    shared: dict[str, Any] = {"model": model, "gguf": gguf, **CALIBRATION, "context": context, "threads": threads}
    imatrix = once(folder / "imatrix", lambda out: calibrate.imatrix(out, tokens=IMATRIX_TOKENS, **shared))
    given = imatrix.folder / str(imatrix.result["file"])
    pass_ = once(folder / "sensitivity", lambda out: measure.measure(out, imatrix=given, tokens=settings.calibration_tokens, rounding=True, **shared))
    completed = pass_.folder / "importances.gguf"
    weights = importances.load(completed)
    assembler = Assembler(gguf, weights, threads=threads)

    def source(*found: Text) -> Source:
        tokens = [hashlib.sha256(text.windows.tobytes() + text.marks.tobytes()).hexdigest() for text in found]
        decides = [file_sha256(gguf), file_sha256(completed), [text.name for text in found], tokens]
        return Source(
            gguf=gguf,
            imatrix=completed,
            statistics=pass_.folder,
            rounding=f"{measure.VERSION}.{improve.VERSION}",
            texts=found,
            context=context,
            digest=hashlib.sha256(json.dumps(decides).encode()).hexdigest(),
            assembler=assembler,
        )

    def text(kind: str, tokens: int, files: dict[str, list[Path]]) -> Text:
        given: dict[str, Any] = {"model": model, "tokens": tokens, "context": context, **files}
        name = f"text-{kind}-{tokens}-{hashlib.sha256(json.dumps(digests(files)).encode()).hexdigest()[:8]}"
        return Text.of(kind, once(folder / name, lambda out: texts.prepare(out, **given)).folder, context)

    more = [drawn(work, settings.drawn)] if settings.drawn else []
    held_out = [text("held-out", settings.tokens, {**HELD_OUT, "chat": [*HELD_OUT["chat"], *more]})]
    if settings.other is not None:
        held_out.append(text("other", settings.tokens, {"chat": [], "plain": [settings.other]}))
    return Prepared(
        name=name,
        folder=folder,
        model=model,
        source=source(*held_out),
        calibration=source(text("calibration", PROBE_TOKENS, CALIBRATION)),
        sensitivity=Sensitivity.load(pass_.folder),
        importances=weights,
        pass_=pass_,
        parameters=int(base.result["parameters"]),
        threads=threads,
    )


def drawn(work: Path, count: int) -> Path:
    """A file of so many conversations about the bench's closed world, none of which the calibration text has."""
    known = {line for path in CALIBRATION["chat"] for line in path.read_text(encoding="utf-8").splitlines()}
    rng, lines = random.Random("held-out"), list[str]()  # noqa: S311 (no secret)
    while len(lines) < count:
        line = json.dumps({"messages": world.conversation(rng)})
        if line not in known:
            lines.append(line)
    path = work / f"drawn-{count}.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def digests(files: dict[str, list[Path]]) -> dict[str, list[str]]:
    """What stands for the content of these texts."""
    return {form: [content_digest(path) for path in paths] for form, paths in files.items()}
