"""A planned mix of anybody's model, without a run, a database or an account: what `sluice plan` and `sluice quantize` do.

Every stage is kept in the home's stage store, under the same key as a run's, so that the next budget costs a plan and no more.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from builders import beginning, packed
from builders.adapters import bases
from builders.folder import headers, listing, loaded
from builders.generated.answers import refuse
from builders.ggufs import weigh
from builders.links import link_or_copy
from builders.names import is_adapter
from builders.rebuilt.choice import is_rebuilt
from builders.sensitivity.table import Sensitivity
from builders.weights import Tensor
from config.digests import file_sha256
from config.errors import ConfigurationError, ToolError, UnsupportedModel, UpstreamError
from config.plans import Budget, Profile, Rules
from config.settings import Settings
from config.texts import Text
from config.words import Measurement
from service.execution.kept import Input, Output, StageStore
from service.execution.looking import Looking, NotKept
from service.execution.workbench import Listener, Workbench
from service.hubclient import connect
from service.release import alone, functions, taking
from service.release.checks import architecture, budgets, smallest
from service.release.checks.room import exceeded, room
from service.release.forecast import Forecast
from service.release.graph import Call, Data, FileOf, Source
from service.release.route import Route
from service.release.what import meant
from service.release.work import perform

HALVES = "activations"  # the stage that tells what float16 cannot hold
TAG = "planned"  # of files before they get the name that was asked for


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is to be planned."""

    model: str  # a folder, a 16-bit GGUF file, owner/name on the Hub, or the address of its page there
    revision: str | None  # the main branch when nobody says another
    text: Text
    context: int  # tokens of a calibration window
    budget: Budget
    profile: Profile
    rounding: bool  # each matrix anew when the file is made, so that its errors cancel
    planned: bool = True  # False: llama.cpp's own mix that the budget speaks of
    made: bool = False  # a file is to be made, not just planned
    probed: bool = False  # sensitivities by probes, even if transformers could run the model

    @property
    def halved(self) -> bool:
        """Whether the file is to be in float16, which does not hold every model."""
        return not self.planned and self.budget.like == "F16"


@dataclass(frozen=True, kw_only=True)
class Outset:
    """What is told before anything is computed."""

    name: str  # of the model
    expected: Forecast
    doubts: tuple[str, ...]  # what may not suffice for it


_MEASUREMENTS = TypeAdapter(list[Measurement])

Tell = Callable[[Outset], None]
"""Hears what it will take."""


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
    def refused(self) -> bool:
        """Whether it is to be in float16, which cannot hold it: a release offers it only where there are no such failures."""
        return any(item.value for name, item in beyond(self).items() if name == "float16.failures")

    @property
    def text(self) -> functions.Calibration:
        """The text to calibrate on."""
        return functions.calibration(self.wanted.text, self.wanted.context)


def bench(settings: Settings, listener: Listener) -> Workbench:
    """A place to work in that needs no database."""
    return Workbench(settings=settings, stages=StageStore(settings.folder), listener=listener)


def prepare(at: Workbench, wanted: Wanted, tell: Tell) -> Prepared:
    """Fetch, repair, convert and calibrate the model, and measure its sensitivities where a mix is planned; `tell` first what all of it will take.

    Raises what the stages raise, and ConfigurationError when this machine surely does not suffice.
    """
    ready, given = Prepared(bench=at, wanted=wanted, name=name_of(wanted, at.settings)), Path(wanted.model).expanduser()
    if given.suffix == ".gguf" and given.is_file():
        ready.name = _named(given.stem)
        try:
            model, seen = smallest.of_gguf(given), alone.of_gguf(given)
        except (OSError, ValueError, KeyError, IndexError):
            pass  # `take` puts into words that it cannot be read
        else:
            _affordable(wanted, model)
            _say(ready, seen, lambda other: _from_gguf(other, given), tell)
        _from_gguf(ready, given)
        return ready
    with _release(ready, tell) as (source, repo):
        _from_model(ready, source, repo)
    return ready


def _from_gguf(ready: Prepared, gguf: Path) -> None:
    """Take a 16-bit file, and calibrate it."""
    ready.do("convert", Call(function="builders.given:take", inputs={"gguf": Data(path=gguf)}, params={"name": ready.name}, threaded=False))
    _calibrate(ready, functions.GGUF)


def _from_model(ready: Prepared, source: Input, repo: str) -> None:
    """Repair and convert a model in the transformers form, and calibrate it."""
    ready.do("fix", functions.fix(source, repo=repo, fixes=True))
    ready.do("convert", functions.convert(name=ready.name, repo=None if Path(ready.wanted.model).expanduser().is_dir() else repo))
    _calibrate(ready, functions.MODEL)


def _calibrate(ready: Prepared, model: Source) -> None:
    wanted = ready.wanted
    if wanted.text.generated:
        refuse(ready.do(functions.GENERATED, functions.generated(model, functions.GGUF, calibration=wanted.text.generated)).result)
    if wanted.halved:
        _look_at_float16(ready, model)
        if ready.refused:
            return
    ready.do("imatrix", functions.imatrix(model, functions.GGUF, ready.text))
    if wanted.planned:
        probed = wanted.probed or ready.fixed is None
        ready.do("sensitivity", functions.sensitivity(model, functions.GGUF, ready.text, probed=probed, rounding=wanted.rounding))


def _look_at_float16(ready: Prepared, model: Source) -> None:
    """What it cannot hold: of weights and activations, or of a model that transformers cannot run, of weights."""
    with suppress(UnsupportedModel):
        if ready.fixed is not None:
            ready.do(HALVES, functions.activations(model, ready.text.files))
            return
    ready.do(HALVES, functions.halves(functions.GGUF))


def _say(ready: Prepared, seen: alone.Seen, begin: Callable[[Prepared], None], tell: Tell) -> None:
    """Tell what is still to be done and what that takes; nothing where this machine cannot be measured. Raises ConfigurationError."""
    at, wanted = ready.bench, ready.wanted
    looking = Looking(settings=at.settings, stages=at.stages, digests=at.digests)
    other = Prepared(bench=looking, wanted=wanted, name=ready.name)
    with suppress(NotKept):
        begin(other)
        if not other.refused:
            _finish(other)
    kept = {f"plan {TAG}" if name == "plan" else name for name in other.outputs}
    tag = TAG if wanted.planned else str(wanted.budget.like)
    last = f"plan {tag}" if not wanted.made else f"round {tag}" if wanted.planned and wanted.rounding else f"build {tag}"
    budget = wanted.budget if wanted.planned else None
    wish = alone.Wish(
        tag=tag,
        budget=budget,
        profile=wanted.profile,
        text=wanted.text,
        context=wanted.context,
        last=last,
        rounded=wanted.rounding,
        probed=wanted.probed,
    )
    try:
        expected = alone.expected(at.settings, seen, wish, kept)
    except ToolError:
        return
    there = room(at.settings)
    if lacking := " ".join(exceeded(expected, there, surely=True)):
        raise ConfigurationError(lacking)
    at.estimates = {"plan" if name == f"plan {TAG}" else name: needs.seconds for name, needs in expected.stages.items()}
    tell(Outset(name=ready.name, expected=expected, doubts=tuple(exceeded(expected, there))))


def plan(ready: Prepared) -> Output:
    """The mix for the budget."""
    return ready.do("plan", functions.plan(functions.GGUF, ready.wanted.budget, ready.wanted.profile, Rules()))


def beyond(ready: Prepared) -> Mapping[str, Measurement]:
    """What was found of float16, by name, where the file is to be in that."""
    made = ready.outputs.get(HALVES)
    return {} if made is None else {item.name: item for item in _MEASUREMENTS.validate_python(made.result["measurements"])}


def quantize(ready: Prepared, target: Path) -> dict[str, Any]:
    """Write the file to `target`, whole or not at all.

    Returns its `bytes` and `bpw`, and whether it was `rounded`, which takes a model that transformers can run.
    """
    built = _finish(ready)
    unfinished = target.with_name(f".{target.name}.unfinished")
    try:
        shutil.copyfile(built.file().path, unfinished)  # a copy: what is done to it must not reach the stage store
        unfinished.replace(target)
    except OSError as error:
        raise ConfigurationError(f"{target} cannot be written: {error.strerror}. Free some space, or name another place by --out.") from error
    finally:
        unfinished.unlink(missing_ok=True)
    return {"bytes": target.stat().st_size, "bpw": weigh(target).bpw, "rounded": f"round {TAG}" in ready.outputs}


def _finish(ready: Prepared) -> Output:
    """The plan, or with it the file."""
    wanted = ready.wanted
    if not wanted.planned:
        return ready.do(f"build {wanted.budget.like}", functions.stock(functions.GGUF, name=ready.name, tag=str(wanted.budget.like)))
    planned = plan(ready)
    if not wanted.made:
        return planned
    built = ready.do(f"build {TAG}", functions.mixed(functions.GGUF, "plan", name=ready.name, tag=TAG))
    return ready.do(f"round {TAG}", functions.rounded(functions.GGUF, f"build {TAG}")) if ready.outputs["sensitivity"].result["rounding"] else built


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


def described(ready: Prepared) -> dict[str, Any]:
    """A stock mix as a JSON document."""
    patches = ready.fixed.result["patches"] if ready.fixed else []
    return {"model": ready.wanted.model, "type": ready.wanted.budget.like, "patches": patches, "written": _written(ready)}


def curve(ready: Prepared) -> dict[str, Any]:
    """Planned mixes from 2 to 8 bits per weight under the profile, and the stock mixes, each a list of `Point` as JSON."""
    inputs: dict[str, Source | Sequence[Source]] = {
        "sensitivity": functions.TABLE,
        "gguf": functions.GGUF,
        "imatrix": FileOf(stage="sensitivity", path=functions.IMPORTANCES),
    }
    return ready.do("curve", Call(function="builders.plan.curve_stage:points", inputs=inputs, params={"profile": ready.wanted.profile}, threaded=False)).result


@contextmanager
def _release(ready: Prepared, tell: Tell) -> Iterator[tuple[Input, str]]:
    """The model's files as an input, and the repo that its family is told by; before that is fetched, `tell` what all will take."""
    at, wanted = ready.bench, ready.wanted
    folder = Path(wanted.model).expanduser()
    if folder.is_dir() and not _is_made(folder):
        repo = f"local/{ready.name}"
        paths = _files(folder)
        seen = _seen(repo, {path: (folder / path).stat().st_size for path in paths}, headers(folder, paths), _configuration(folder))
        _affordable(wanted, smallest.of_safetensors(seen.shapes, seen.config))
        with at.stages.workspace("local") as linked:
            source = _local(folder, paths, linked / "files")
            _say(ready, seen, lambda other: _from_model(other, source, repo), tell)
            yield source, repo
        return
    named = meant(str(folder.resolve()) if folder.is_dir() else wanted.model, endpoint=at.settings.hub_endpoint, revision=wanted.revision, name=None)
    route = Route(api=connect(at.settings), folder=named.folder)
    upstream = taking.resolved(at, route, named.repo, named.revision)
    there = bases.see(route.source, route.hub, upstream)
    seen = replace(_seen(upstream.release.repo, there.sizes, there.tensors, there.config), remote=True)
    _affordable(wanted, smallest.of_safetensors(seen.shapes, seen.config))

    def begin(other: Prepared) -> None:
        other.outputs["snapshot"] = taking.taken(other.bench, route, upstream)
        _from_model(other, other.outputs["snapshot"].whole, upstream.release.repo)

    _say(ready, seen, begin, tell)
    yield taking.taken(at, route, upstream).whole, upstream.release.repo


def _is_made(folder: Path) -> bool:
    """Whether the model has to be made first of what the folder holds: an adapter, or GGUF alone."""
    listed = listing(folder)
    return is_adapter(listed) or is_rebuilt(listed)


def name_of(wanted: Wanted, settings: Settings) -> str:
    """The model's name, as files have it. Raises ConfigurationError when it is no model."""
    given = Path(wanted.model).expanduser()
    if given.suffix == ".gguf" and given.is_file():
        return _named(re.sub(r"[-.](?:BF16|F16|F32)$", "", given.stem, flags=re.IGNORECASE))
    if given.is_dir():
        return _named(given.resolve().name)
    return meant(wanted.model, endpoint=settings.hub_endpoint, revision=wanted.revision, name=None).repo.rpartition("/")[2]


def _affordable(wanted: Wanted, model: smallest.Model) -> None:
    """Raise ConfigurationError when no mix of the model keeps to the budget, before anything is computed; a stock mix is always possible."""
    if wanted.budget.like is None and (sentence := budgets.too_small(wanted.budget, model, profile=wanted.profile, rules=Rules())):
        raise ConfigurationError(f"{wanted.model} cannot be planned: {sentence}")


def _seen(repo: str, sizes: Mapping[str, int], stored: Mapping[str, Tensor], config: Mapping[str, Any]) -> alone.Seen:
    """A model in the transformers form. Raises UpstreamError when nothing can be made of it, before anything is downloaded or computed."""
    if (refusal := beginning.refusal(config, stored)) is not None:
        raise UpstreamError(f"{repo} {refusal}")
    if config:
        architecture.require_known(repo, config, fixes=True)
    return alone.Seen(repo=repo, sizes=sizes, shapes={name: tensor.shape for name, tensor in packed.plain(stored).items()}, config=config, stored=stored)


def _configuration(folder: Path) -> dict[str, Any]:
    """config.json; nothing of one that cannot be read, which is told by the stage that needs it."""
    config: object = None
    with suppress(OSError, ValueError, RecursionError):
        config = json.loads((folder / "config.json").read_bytes())
    return config if isinstance(config, dict) else {}


def _named(text: str) -> str:
    """A name that files can have."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip(".-") or "model"


def _files(folder: Path) -> tuple[str, ...]:
    """Names of the files that the model in a folder consists of, as a release of it would. Raises UpstreamError when they are no whole model."""
    if not any(path.suffix == ".safetensors" for path in folder.iterdir()):
        raise UpstreamError(f"{folder} holds no .safetensors file. Give the folder of a model in the transformers form: config.json, tokenizer and weights.")
    return loaded(folder)


def _local(folder: Path, names: Sequence[str], linked: Path) -> Input:
    """These files of a folder, taken in as they are, through the links that a folder of the Hub's cache consists of."""
    digest = hashlib.sha256()
    for name in names:
        (linked / name).parent.mkdir(exist_ok=True)
        link_or_copy((folder / name).resolve(), linked / name)
        digest.update(f"{file_sha256(folder / name)}  {name}\n".encode())
    return Input(path=linked, digest=digest.hexdigest())
