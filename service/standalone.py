"""A planned mix of anybody's model, without a run, a database or an account: what `sluice plan` and `sluice quantize` do.

Every stage is kept in the home's stage store, under the same key as a run's, so that the next budget costs a plan and no more.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from builders import snapshot
from builders.generated.answers import refuse
from builders.links import link_or_copy
from builders.names import CONFIGURATION, INDEX
from builders.sensitivity.table import Sensitivity
from builders.sources import HubSource
from builders.weights import read_header, weight_files
from config.digests import file_sha256
from config.errors import ConfigurationError, UnsupportedModel, UpstreamError
from config.plans import Budget, Profile, Rules
from config.recipe import Text
from config.settings import REPO_ID, Settings
from service.execution.kept import Input, Output, StageStore
from service.execution.workbench import Listener, Workbench
from service.hubclient import connect
from service.release import functions
from service.release.checks import budgets, smallest
from service.release.graph import Call, Data, FileOf, Source, Whole
from service.release.prospect import config_of
from service.release.work import perform

TAG = "planned"  # of files before they get the name that was asked for


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is to be planned."""

    model: str  # a folder, a 16-bit GGUF file, or owner/name on the Hub
    revision: str
    text: Text
    context: int  # tokens of a calibration window
    budget: Budget
    profile: Profile
    rounding: bool  # when a file is made: each matrix anew, so that its errors cancel
    probed: bool = False  # sensitivities by probes, even if transformers could run the model


@dataclass(kw_only=True)
class Prepared:
    """A model with what was made from it so far, by the names that the stages have in a release."""

    bench: Workbench
    wanted: Wanted
    name: str = "model"
    outputs: dict[str, Output] = field(default_factory=dict)

    def do(self, stage: str, call: Call) -> Output:
        """The output of a call, kept under the stage's name. Raises the stage's error."""
        self.outputs[stage] = perform(self.bench, stage, call, outputs=self.outputs.__getitem__)
        return self.outputs[stage]

    @property
    def fixed(self) -> Output | None:
        """The repaired model; None of a GGUF file."""
        return self.outputs.get("fix")

    @property
    def text(self) -> functions.Calibration:
        """The text to calibrate on."""
        return functions.calibration(self.wanted.text, self.wanted.context)


def bench(settings: Settings, listener: Listener) -> Workbench:
    """A place to work in that needs no database."""
    return Workbench(settings=settings, stages=StageStore(settings.folder), listener=listener)


def prepare(at: Workbench, wanted: Wanted) -> Prepared:
    """Fetch, repair, convert and calibrate the model, and measure its sensitivities. Raises what the stages raise."""
    ready, given = Prepared(bench=at, wanted=wanted), Path(wanted.model).expanduser()
    if given.suffix == ".gguf" and given.is_file():
        ready.name = _named(given.stem)
        with suppress(OSError, ValueError, KeyError, IndexError):  # which `take` puts into words
            _affordable(wanted, smallest.of_gguf(given))
        ready.do("convert", Call(function="builders.given:take", inputs={"gguf": Data(path=given)}, params={"name": ready.name}, threaded=False))
        model: Source = functions.GGUF
    else:
        with _release(at, wanted) as (source, name, repo):
            ready.name = name
            ready.do("fix", functions.fix(source, repo=repo, fixes=True))
        ready.do("convert", functions.convert(name=name))
        model = functions.MODEL
    if wanted.text.generated:
        refuse(ready.do(functions.GENERATED, functions.generated(model, functions.GGUF, calibration=wanted.text.generated)).result)
    ready.do("imatrix", functions.imatrix(model, functions.GGUF, ready.text))
    ready.do("sensitivity", functions.sensitivity(model, functions.GGUF, ready.text, probed=wanted.probed or ready.fixed is None))
    return ready


def plan(ready: Prepared) -> Output:
    """The mix for the budget."""
    return ready.do("plan", functions.plan(functions.GGUF, ready.wanted.budget, ready.wanted.profile, Rules()))


def quantize(ready: Prepared, target: Path) -> dict[str, Any]:
    """Write the planned file to `target`, whole or not at all.

    Returns its `bytes`, and whether it was `rounded`, which takes a model that transformers can run.
    """
    built = ready.do(f"build {TAG}", functions.mixed(functions.GGUF, "plan", name=ready.name, tag=TAG))
    if rounded := ready.wanted.rounding and _hessians(ready):
        built = ready.do(f"round {TAG}", functions.rounded(functions.GGUF, f"build {TAG}"))
    unfinished = target.with_name(f".{target.name}.unfinished")
    try:
        shutil.copyfile(built.file().path, unfinished)  # a copy: what is done to it must not reach the stage store
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)
    return {"bytes": target.stat().st_size, "rounded": rounded}


def _hessians(ready: Prepared) -> bool:
    """Whether there are statistics to round with: there are none where transformers cannot run the model."""
    if ready.fixed is None or ready.outputs["sensitivity"].result["reason"] is not None:
        return False
    try:
        ready.do("hessians", functions.hessians(functions.GGUF, ready.text))
    except UnsupportedModel:
        return False
    return True


def describe(ready: Prepared) -> dict[str, Any]:
    """The plan as a JSON document: totals, and of each tensor its type, bytes and share of the predicted divergence, in the order of the file."""
    wanted, planned, measured = ready.wanted, ready.outputs["plan"], ready.outputs["sensitivity"]
    table = Sensitivity.load(measured.folder / "files")
    mix: dict[str, str] = json.loads((planned.folder / "files" / "mix.json").read_text(encoding="utf-8"))
    shares = planned.result["shares"]
    probes, checked = measured.result.get("probes", {}), measured.result.get("checked", [])
    total = sum(shares.values())
    tensors = [
        {
            "name": tensor.name,
            "type": mix[tensor.name],
            "bytes": tensor.bytes(mix[tensor.name]),
            "bpw": tensor.bpw(mix[tensor.name]),
            "share": shares[tensor.name] / total if total else 0.0,
        }
        for tensor in table.tensors
    ]
    return {
        "model": wanted.model,
        "budget": wanted.budget.model_dump(mode="json", exclude_none=True),
        "profile": wanted.profile,
        "patches": ready.fixed.result["patches"] if ready.fixed else [],
        "windows": measured.result["windows"],
        "written": _written(ready),
        "sensitivity": {
            "provider": table.provider,
            "systematic": table.systematic,
            "probes": len(probes) + len(checked),
            "reason": measured.result["reason"],
        },
        **{name: planned.result[name] for name in ("bytes", "bpw", "predicted", "activations", "stock")},
        "tensors": tensors,
    }


def _written(ready: Prepared) -> int:
    """Tokens of the calibration text that the model wrote itself."""
    own = ready.outputs.get(functions.GENERATED)
    return 0 if own is None else int(own.result["parts"]["calibration"]["tokens"])


def curve(ready: Prepared) -> dict[str, Any]:
    """Planned mixes from 2 to 8 bits per weight under the profile, and the stock mixes, each a list of `Point` as JSON."""
    inputs: dict[str, Source | Sequence[Source]] = {
        "sensitivity": Whole(stage="sensitivity"),
        "gguf": functions.GGUF,
        "imatrix": FileOf(stage="sensitivity", path=functions.IMPORTANCES),
    }
    return ready.do("curve", Call(function="builders.plan.curve_stage:points", inputs=inputs, params={"profile": ready.wanted.profile}, threaded=False)).result


@contextmanager
def _release(at: Workbench, wanted: Wanted) -> Iterator[tuple[Input, str, str]]:
    """The model's files as an input, the model's name, and the repo that its family is told by."""
    folder = Path(wanted.model).expanduser()
    if folder.is_dir():
        name = _named(folder.resolve().name)
        _affordable(wanted, _described(folder))
        with at.stages.workspace("local") as linked:
            yield _local(folder, linked / "files"), name, f"local/{name}"
    elif re.fullmatch(REPO_ID, wanted.model):
        api = connect(at.settings)
        upstream = snapshot.resolve(api, wanted.model, wanted.revision)
        release = upstream.release
        if wanted.budget.like is None:  # a stock mix is always possible
            shapes = snapshot.shapes(api, release, snapshot.sizes(api, release))
            _affordable(wanted, smallest.of_safetensors(shapes, config_of(HubSource(api=api), upstream)))
        fetched = at.here("snapshot", snapshot.fetch, asdict(release), api=api, release=release)
        yield fetched.whole, release.name, release.repo
    else:
        raise ConfigurationError(f"{wanted.model!r} is neither a folder, a .gguf file nor the name of a repo on the Hub (owner/name). Give one of these.")


def _affordable(wanted: Wanted, model: smallest.Model) -> None:
    """Raise ConfigurationError when no mix of the model keeps to the budget, before anything is computed."""
    if sentence := budgets.too_small(wanted.budget, model, profile=wanted.profile, rules=Rules()):
        raise ConfigurationError(f"{wanted.model} cannot be planned: {sentence}")


def _described(folder: Path) -> smallest.Model:
    """What a folder's headers and config.json say; nothing of a config that cannot be read, which is told by the stage that needs it."""
    config: object = None
    with suppress(OSError, ValueError, RecursionError):
        config = json.loads((folder / "config.json").read_bytes())
    shapes = {tensor.name: tensor.shape for path in weight_files(folder) for tensor in read_header(path)}
    return smallest.of_safetensors(shapes, config if isinstance(config, dict) else {})


def _named(text: str) -> str:
    """A name that files can have."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip(".-") or "model"


def _local(folder: Path, linked: Path) -> Input:
    """A folder's model files, taken in as they are: through the links that a folder of the Hub's cache consists of, and nothing else of it."""
    paths = [path for path in sorted(folder.iterdir()) if path.is_file() and (path.name in CONFIGURATION | {INDEX} or path.suffix == ".safetensors")]
    if not any(path.suffix == ".safetensors" for path in paths):
        raise UpstreamError(f"{folder} holds no .safetensors file. Give the folder of a model in the transformers form: config.json, tokenizer and weights.")
    digest = hashlib.sha256()
    for path in paths:
        if path.suffix == ".safetensors":
            read_header(path)
        link_or_copy(path.resolve(), linked / path.name)
        digest.update(f"{file_sha256(path)}  {path.name}\n".encode())
    return Input(path=linked, digest=digest.hexdigest())
