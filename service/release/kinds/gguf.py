"""GGUF files: llama.cpp's stock mixes, and planned mixes in which every tensor has the type where its bytes do most good."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, get_args

from builders import ggufs
from builders.contents import place
from builders.ggufs import Stored
from builders.split import PART
from config.plans import ProjectorType, StoredType
from config.recipe import Dynamic, Recipe
from config.words import Kind, Variant
from publishers import naming, ollama
from publishers.card import Change, Mix
from publishers.form import Form
from publishers.hub import PublishFile
from service.execution.kept import Inputs, Output
from service.release import costs, functions
from service.release.checks import budgets
from service.release.costs import sizes
from service.release.graph import Call, OfRelease, Phase, Stage
from service.release.kinds import LLAMA_CPP, Planned, VariantKind, every_variant
from service.release.products import JUDGED, Built, Judged, Made, from_stage
from service.release.work import Work

if TYPE_CHECKING:
    from service.release.checks.smallest import Model
    from service.release.prospect import Prospect

SHOWN_CHANGES = 4  # kinds of tensors that a card names on either side
NOTABLE = 0.05  # bits per weight: smaller differences to the stock mix are not told

_NAME = OfRelease(name="name")


def stages(recipe: Recipe) -> Iterator[Stage]:
    """A stage for each stock mix, then what all planned mixes need, and of each planned mix its plan, its file, and the file rounded anew."""
    for variant in every_variant(recipe):
        if variant.kind is Kind.GGUF and not variant.planned:
            yield _stock(variant)
    planned = recipe.variants.dynamic
    if not planned:
        return
    text = functions.calibration(recipe.calibration, recipe.evaluation.context)
    yield Stage(
        name="sensitivity",
        phase=Phase.PLAN,
        does="measure what each type in each tensor does to the model's predictions, and how errors within a matrix count together",
        work=functions.sensitivity(functions.MODEL, functions.GGUF, text, rounding=any(entry.rounding for entry in planned)),
        unit="windows",
        cost=costs.sensitivity,
        alone=True,
    )
    first = next((entry for entry in planned if entry.rounding), None)
    for entry in planned:
        yield from _planned(entry, first=entry is first)


def _stock(variant: Variant) -> Stage:
    if variant.tag in get_args(StoredType):
        return Stage(
            name=f"build {variant.tag}",
            variant=variant.tag,
            phase=Phase.BUILD,
            does="move upstream's own 4-bit numbers into a GGUF file",
            work=functions.stored(functions.GGUF, name=_NAME),
            unit="tensors",
            cost=costs.convert,
            alone=True,
        )
    return Stage(
        name=f"build {variant.tag}",
        variant=variant.tag,
        phase=Phase.BUILD,
        does="make one of llama.cpp's stock mixes",
        work=functions.stock(functions.GGUF, name=_NAME, tag=variant.tag),
        unit="tensors",
        cost=costs.stock(variant),
    )


def _planned(entry: Dynamic, *, first: bool) -> Iterator[Stage]:
    yield Stage(
        name=f"plan {entry.tag}",
        variant=entry.tag,
        phase=Phase.PLAN,
        does="choose each tensor's type",
        work=functions.plan(functions.GGUF, entry.budget, entry.profile, entry.rules),
        cost=costs.mix(entry),
        alone=True,
    )
    yield Stage(
        name=f"build {entry.tag}",
        variant=entry.tag,
        phase=Phase.PLAN,
        does="make the planned mix",
        work=functions.mixed(functions.GGUF, f"plan {entry.tag}", name=_NAME, tag=entry.tag),
        unit="tensors",
        cost=costs.mixed(entry.variant),
        alone=True,
    )
    if entry.rounding:
        call = functions.rounded(functions.GGUF, f"build {entry.tag}")
        yield Stage(
            name=f"round {entry.tag}",
            variant=entry.tag,
            phase=Phase.PLAN,
            does="round its matrices anew so that their errors cancel",
            work=lambda work: _rounded(work, entry.tag, call),
            also=call.takes,
            unit="tensors",
            cost=costs.rounded(entry.variant, first=first),
            alone=True,
        )


def _rounded(work: Work, tag: str, call: Call) -> Output:
    """The mix as it was built where transformers cannot run the model: it keeps llama.cpp's own rounding."""
    if not work.output("sensitivity").result["rounding"]:
        return work.output(f"build {tag}")
    return work.call(f"round {tag}", call, helps=_others(work))


def _others(work: Work) -> Inputs:
    """The mixes that were rounded anew already. On several machines they come about side by side, and would have to be sent."""
    if work.job.place.wide:
        return {}
    made = [(work.made(f"build {mix.tag}"), work.made(f"round {mix.tag}")) for mix in work.recipe.variants.dynamic if mix.rounding]
    pairs = [(plain.file(), again.file()) for plain, again in made if plain is not None and again is not None and again is not plain]
    return {"built": [plain for plain, _ in pairs], "rounded": [again for _, again in pairs]}


def maker(recipe: Recipe, variant: Variant) -> str:
    """The last stage that works on the variant's file."""
    entry = recipe.variants.mix(variant.tag)
    return f"round {variant.tag}" if entry is not None and entry.rounding else f"build {variant.tag}"


def content(work: Work, passed: Sequence[Built]) -> list[PublishFile]:
    """The variants' files, the importance matrix, and what Ollama reads beside them."""
    imatrix, chat = work.output("imatrix"), work.output(functions.CHAT)
    files = [from_stage(item.output, file) for item in passed for file in item.output.files]
    files += [from_stage(imatrix, file, naming.IMATRIX) for file in imatrix.files if file.path == imatrix.result["file"]]
    files += [PublishFile.from_bytes(naming.OLLAMA_PARAMS, ollama.params(chat.result["sampling"], [*chat.result["stops"], *work.output("fix").result["stop"]]))]
    if template := work.output(functions.OLLAMA).result["template"]:
        files += [PublishFile.from_bytes(naming.OLLAMA_TEMPLATE, template.encode())]
    return [*files, *(from_stage(item.output, item.file) for item in work.of(JUDGED, Judged).projectors if item.passed)]


def holds(name: str, variants: Collection[Variant], upstream: Collection[str]) -> Callable[[str], bool]:
    """A file for each variant or its parts, the importance matrix, and Ollama's."""
    beside = {naming.IMATRIX, naming.OLLAMA_PARAMS, naming.OLLAMA_TEMPLATE, *(f"mmproj-{type}.gguf" for type in get_args(ProjectorType))}
    own = {f"{name}-{variant.tag}.gguf" for variant in variants}
    parts = {f"{variant.tag}/{name}-{variant.tag}.gguf" for variant in variants}
    return lambda path: path in beside or path in own or (PART.search(path) is not None and PART.sub(".gguf", path) in parts)


def _stand_in(work: Work, item: Made, stock: Made) -> Output:
    """The stock mix under the planned one's name."""
    tag = item.variant.tag
    params = {"name": _NAME, "tag": tag}
    return work.call(f"stand-in {tag}", Call(function="builders.stand_in:stand_in", inputs={"gguf": stock.output.file()}, params=params, threaded=False))


def _differences(mix: Mix, ours: Mapping[str, Stored], theirs: Mapping[str, Stored]) -> Mix:
    """With the kinds of tensors that have most bits more or fewer than in the stock mix."""
    found = sorted(_changes(ours, theirs), key=lambda change: abs(change.bits - change.stock_bits), reverse=True)
    return replace(
        mix,
        more=tuple(change for change in found if change.bits > change.stock_bits)[:SHOWN_CHANGES],
        fewer=tuple(change for change in found if change.bits < change.stock_bits)[:SHOWN_CHANGES],
    )


def _changes(ours: Mapping[str, Stored], theirs: Mapping[str, Stored]) -> list[Change]:
    """Kinds of tensors whose bits per weight differ, all layers together."""
    changes = []
    for kind in sorted({place(name)[1] for name in theirs}):
        names = [name for name in theirs if place(name)[1] == kind and name in ours and theirs[name].matrix]
        if values := sum(theirs[name].values for name in names):
            bits, stock_bits = (8 * sum(side[name].bytes for name in names) / values for side in (ours, theirs))
            if abs(bits - stock_bits) >= NOTABLE:
                changes.append(Change(tensors=kind, bits=bits, stock_bits=stock_bits))
    return changes


def _too_small(prospect: "Prospect", variant: Variant, model: "Model") -> str | None:
    entry = prospect.recipe.variants.mix(variant.tag)
    return None if entry is None else budgets.too_small(entry.budget, model, profile=entry.profile, rules=entry.rules)


KIND = VariantKind(
    kind=Kind.GGUF,
    place=0,
    engine=LLAMA_CPP,
    stages=stages,
    maker=maker,
    content=content,
    holds=holds,
    form=Form(word=Kind.GGUF, title="GGUF files", library="gguf", tags=("gguf", "imatrix"), imatrix=True, ollama=True),
    repo=lambda variant: "-GGUF",
    bits=sizes.gguf_bits,
    original=lambda prospect, variant: variant.tag == prospect.reference,
    planned=Planned(
        larger=False,
        yardstick=lambda tag: (f"{tag}, the stock mix of the same size,", "the stock mix"),
        stand_in=_stand_in,
        stored=lambda output: ggufs.stored(output.file().path),
        differences=_differences,
        too_small=_too_small,
    ),
)
