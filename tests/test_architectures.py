"""The table of architectures, in docs/architectures.md: a random miniature of each goes from snapshot to measured variants, or is refused with the reason."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from builders import calibrate, convert, fixes, quantize
from builders.plan import plan
from builders.sensitivity import measure
from builders.sensitivity.table import Sensitivity
from config.errors import UpstreamError
from engines import gguf_table, hf, quantizable
from qa import file_checks, group, parity, preflight, texts
from tests import architectures

ROOT = Path(__file__).parents[1]
DATA = ROOT / "demo" / "data"
DOCS = ROOT / "docs" / "architectures.md"
THREADS = 1
CONTEXT = 128
TEXT: dict[str, Any] = {"chat": [], "plain": [DATA / "calibration_questions.txt"], "context": CONTEXT, "threads": THREADS}
EVALUATED = 512  # tokens
PARITY = 5e-4  # nats: what rounding activations to the weights' type makes
ROUTED = 0.02  # and what it makes where that sends a token to another expert, for random routers are never sure
TOKENIZED_OTHERWISE = {"Qwen2", "Qwen3"}  # transformers reads the bundled vocabulary by Qwen2's rules, whatever its tokenizer.json says
SLOWLY_READ = {"Qwen3-MoE", "Qwen3-Next", "GLM4-MoE", "DeepSeek", "Mamba"}  # a vocabulary of 50,000: their planned files are not compared weight by weight


@dataclass(kw_only=True)
class Way:
    """A miniature, and what was made of it."""

    out: Path
    model: Path
    gguf: Path
    made: dict[str, Any] = field(default_factory=dict)

    def folder(self, name: str) -> Path:
        (folder := self.out / name).mkdir(exist_ok=True)
        return folder


Ways = Callable[[str], Way]


@pytest.fixture(scope="session")
def ways(tmp_path_factory: pytest.TempPathFactory) -> Ways:
    """Each miniature, repaired and converted when it is first asked for."""
    made: dict[str, Way] = {}

    def way(name: str) -> Way:
        if name not in made:
            made[name] = _converted(architectures.MODELS[name], tmp_path_factory.mktemp(re.sub(r"\W", "", name)))
        return made[name]

    return way


def _converted(make: architectures.Make, out: Path) -> Way:
    snapshot, model = make(out / "snapshot"), out / "model"
    model.mkdir()
    fixes.repair(model, snapshot=snapshot, repo="makers/miniature", fixes=True)
    return Way(out=out, model=model, gguf=out / str(convert.convert(out, model=model, name="miniature")["file"]))


def values(measured: Mapping[str, Any]) -> dict[str, Any]:
    return {item["name"]: item["value"] for item in measured["measurements"]}


@pytest.mark.parametrize("name", architectures.MODELS)
def test_the_conversion_is_right(name: str, ways: Ways) -> None:
    way = ways(name)
    assert values(preflight.metadata(way.out, model=way.model, gguf=way.gguf))["metadata.failures"] == 0
    found = values(parity.compare(way.out, model=way.model, gguf=way.gguf, texts=[_short(way.out)], threads=THREADS))
    assert (found["parity.token_mismatches"] == 0) == (name not in TOKENIZED_OTHERWISE)
    routed = any("_exps." in entry.name for entry in gguf_table.read(way.gguf).entries)
    assert found["parity.kld"] < (ROUTED if routed else PARITY)


def _short(out: Path) -> Path:
    """A text of about two windows."""
    file = out / "text.txt"
    file.write_text((DATA / "evaluation_questions.txt").read_text(encoding="utf-8")[:4000], encoding="utf-8")
    return file


@pytest.mark.parametrize("name", architectures.MODELS)
def test_transformers_goes_on_with_a_text_as_if_it_read_it_anew(name: str, ways: Ways) -> None:
    """Whatever it remembers of the text: keys and values, a window of them, a state."""
    with hf.open_model(ways(name).model, threads=THREADS) as engine:
        text = engine.tokenize("What is the chemical symbol of nitrogen?", add_special=True)
        whole = engine.logits(text, len(text) - 1)
        assert engine.continuations(text[:-3], [text[-3:]]) == pytest.approx(whole, abs=1e-4)
        said = engine.generate(text, max_tokens=4, stop=())
        anew = [int(engine.logits([*text, *said[:count]], len(text) + count - 1).argmax()) for count in range(len(said))]
        assert said == anew


@pytest.mark.parametrize("name", architectures.MODELS)
def test_variants_are_made_and_measured(name: str, ways: Ways) -> None:
    way = ways(name)
    imatrix = way.folder("imatrix") / str(calibrate.imatrix(way.folder("imatrix"), model=way.model, gguf=way.gguf, tokens=1024, **TEXT)["file"])
    assert values(preflight.imatrix(way.out, imatrix=imatrix, gguf=way.gguf))["imatrix.failures"] == 0
    stock = quantize.quantize(way.out, gguf=way.gguf, imatrix=imatrix, type="Q4_K_M", name="miniature", threads=THREADS)
    planned = _planned(name, way, imatrix)
    windows = way.folder("windows")
    texts.prepare(windows, model=way.model, chat=[], plain=[DATA / "evaluation_questions.txt"], context=CONTEXT, tokens=EVALUATED, most_tokens=EVALUATED)
    files = [way.out / str(stock["file"]), planned]
    assert group.measure(way.folder("scores"), reference=way.gguf, variants=files, windows=windows, context=CONTEXT, threads=THREADS)["errors"] == {}
    pooled = [group.pool([group.Part(file=way.out / "scores" / f"{number}.npy", start=0, end=EVALUATED)], windows, CONTEXT).measurements for number in range(2)]
    stock_kld, planned_kld = (next(item.value for item in measured if item.name == "kld.mean") for measured in pooled)
    assert 0 < planned_kld < stock_kld
    assert planned.stat().st_size <= files[0].stat().st_size


def _planned(name: str, way: Way, imatrix: Path) -> Path:
    """The planned mix of the stock one's size, rounded where transformers has gradients; every matrix that llama.cpp multiplies by is in the plan."""
    sensitivity = way.folder("sensitivity")
    found = measure.measure(sensitivity, model=way.model, gguf=way.gguf, imatrix=imatrix, tokens=256, **TEXT)
    unused = quantizable.without_importances(way.gguf, imatrix)
    wanted = {entry.name for entry in quantizable.in_layers(way.gguf)} - set(unused)
    assert wanted < {tensor.name for tensor in Sensitivity.load(sensitivity).tensors}
    importances, mix = sensitivity / "importances.gguf", way.folder("plan")
    plan(mix, sensitivity=sensitivity, gguf=way.gguf, imatrix=importances, budget={"like": "Q4_K_M"}, threads=THREADS)
    made = quantize.mixed(mix, gguf=way.gguf, imatrix=importances, mix=mix / "mix.json", name="miniature", tag="UD-Q4_K_XL", threads=THREADS)
    file = mix / str(made["file"])
    if name not in SLOWLY_READ:
        assert file_checks.weights(file, way.gguf).details == ()
    way.made = {"sensitivities": "gradients" if found["reason"] is None else "probes", "why": found["reason"]}
    return file


# ---- what the table says ----------------------------------------------------------------------------------------------------------------------


def rows() -> dict[str, list[str]]:
    """The table of docs/architectures.md by its first column."""
    lines = [line for line in DOCS.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {first: rest for first, *rest in cells[1:]}


def test_the_table_lists_what_is_tried_here() -> None:
    assert set(rows()) == {*architectures.MODELS, *architectures.REFUSED}


@pytest.mark.parametrize("name", architectures.MODELS)
def test_the_table_says_what_was_found(name: str, ways: Ways) -> None:
    way = ways(name)
    config = json.loads((way.model / "config.json").read_text(encoding="utf-8"))
    assert rows()[name][:2] == [f"`{config['architectures'][0]}`", "converted, measured, planned"]
    if way.made:  # by the test of variants, where that ran
        assert rows()[name][2] == way.made["sensitivities"]


@pytest.mark.parametrize("name", architectures.REFUSED)
def test_what_cannot_be_converted_is_refused_in_one_sentence(name: str, tmp_path: Path) -> None:
    with pytest.raises(UpstreamError) as refused:
        _converted(architectures.REFUSED[name], tmp_path)
    config = json.loads((tmp_path / "snapshot" / "config.json").read_text(encoding="utf-8"))
    assert rows()[name][:2] == [f"`{config['architectures'][0]}`", "refused"]
    assert rows()[name][3] in str(refused.value)
