"""Planned variants: sensitivities, plan and files of each, and whether it is what it promised to be, beside the stock mix of its size or plain NF4."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from builders import ggufs, weights
from builders.contents import place
from builders.ggufs import Stored
from config.errors import SluiceError, UnsupportedModel
from config.plans import Budget, Profile, Rules
from config.recipe import PLAIN_NF4, Dynamic, DynamicNf4
from config.words import Kind, Measurement
from publishers.card import Change, Kept, Mix, TypeUse
from service.execution.kept import Input, Inputs, Output
from service.execution.workbench import Workbench
from service.release.built import Checked, Found, Made
from service.release.groundwork import Texts
from service.release.job import Job

ALARM = 2.0  # a divergence so many times higher than the plan lets expect is told
SHOWN_CHANGES = 4  # kinds of tensors that a card names on either side
NOTABLE = 0.05  # bits per weight: smaller differences to the stock mix are not told

_LAYER = re.compile(r"(?:[A-Za-z_]\w*\.)*(?P<layer>\d+)\.(?P<part>.+)")


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A planned variant: what was foretold, and the files made from it."""

    plan: Output
    file: Output


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What a planned variant promised, what came of it, and what is published under its tag."""

    made: Made
    diverged: Found | SluiceError  # with the measurements `plan.…`
    mix: Mix


def sensitivity(bench: Workbench, model: Input, base: Output, imatrix: Output, texts: Texts, *, tokens: int, context: int, probed: bool = False) -> Output:
    """The table from which every mix of the model is planned, with the completed importances: once for all budgets.

    `model` is the folder in the transformers form; the GGUF file where there is none, and then only probes can tell.
    """
    inputs: Inputs = {"model": model, "gguf": base.file(), "imatrix": imatrix.file(), "chat": texts["chat"], "plain": texts["plain"]}
    return bench.apart("sensitivity", "builders.sensitivity.measure:measure", inputs, tokens=tokens, context=context, probed=probed)


def plan(bench: Workbench, name: str, base: Output, table: Output, *, budget: Budget, profile: Profile, rules: Rules) -> Output:
    """The best mix within a budget; `mix.json` holds each tensor's type."""
    inputs: Inputs = {"sensitivity": table.whole, "gguf": base.file(), "imatrix": table.file("importances.gguf")}
    wanted = budget.model_dump(mode="json", exclude_none=True)
    return bench.apart(name, "builders.plan.stage:plan", inputs, budget=wanted, profile=profile, rules=rules.model_dump(mode="json"))


def hessians(bench: Workbench, model: Output, base: Output, table: Output, texts: Texts, *, tokens: int, context: int) -> Output | None:
    """How errors of columns count together: what rounding needs, once for all mixes. None where transformers cannot run the model."""
    if table.result["reason"] is not None:
        return None
    inputs: Inputs = {"model": model.whole, "gguf": base.file(), "chat": texts["chat"], "plain": texts["plain"]}
    try:
        return bench.apart("hessians", "builders.rounding.collect:collect", inputs, tokens=tokens, context=context)
    except UnsupportedModel:
        return None


def build(bench: Workbench, base: Output, table: Output, planned: Output, statistics: Output | None, *, name: str, tag: str) -> Output:
    """The file NAME-TAG.gguf in which every tensor has its planned type, rounded anew when there are statistics for it."""
    inputs: Inputs = {"gguf": base.file(), "imatrix": table.file("importances.gguf"), "mix": planned.file("mix.json")}
    built = bench.apart(f"build {tag}", "builders.quantize:mixed", inputs, name=name, tag=tag)
    if statistics is None:
        return built
    inputs = {"quantized": built.file(), "gguf": base.file(), "statistics": statistics.whole}
    return bench.apart(f"round {tag}", "builders.rounding.improve:improve", inputs)


def mixes(job: Job, checked: Checked, texts: Texts, stock: Mapping[str, Output]) -> tuple[dict[str, Planned], dict[str, SluiceError]]:
    """The plan and the files of each planned variant of the recipe, by tag, or why there is none: others do without them.

    `stock` holds the variants that are not planned, by tag: plain NF4 is among them whenever a planned one is wanted.
    """
    variants = job.recipe.variants
    kinds: list[tuple[Sequence[Dynamic | DynamicNf4], Callable[[], Callable[[Any], Planned]]]] = [
        (variants.dynamic, lambda: _ggufs(job, checked, texts)),
        (variants.dynamic_bnb_4bit, lambda: _nf4(job, checked, texts, stock[PLAIN_NF4])),
    ]
    made: dict[str, Planned] = {}
    failed: dict[str, SluiceError] = {}
    for entries, prepare in kinds:
        if not entries:
            continue
        try:
            make = prepare()
        except SluiceError as error:
            failed |= {entry.tag: error for entry in entries}
            continue
        for entry in entries:
            try:
                made[entry.tag] = make(entry)
            except SluiceError as error:
                failed[entry.tag] = error
    return made, failed


def _ggufs(job: Job, checked: Checked, texts: Texts) -> Callable[[Dynamic], Planned]:
    """Measures what all planned GGUF files need; the function makes one of them."""
    tokens, context = job.recipe.calibration.tokens, job.recipe.evaluation.context
    table = sensitivity(job, checked.model.whole, checked.base, checked.imatrix, texts, tokens=tokens, context=context)
    rounded = any(entry.rounding for entry in job.recipe.variants.dynamic)
    statistics = hessians(job, checked.model, checked.base, table, texts, tokens=tokens, context=context) if rounded else None

    def make(entry: Dynamic) -> Planned:
        planned = plan(job, f"plan {entry.tag}", checked.base, table, budget=entry.budget, profile=entry.profile, rules=entry.rules)
        file = build(job, checked.base, table, planned, statistics if entry.rounding else None, name=job.run.release.name, tag=entry.tag)
        return Planned(plan=planned, file=file)

    return make


def _nf4(job: Job, checked: Checked, texts: Texts, plain: Output) -> Callable[[DynamicNf4], Planned]:
    """Measures what all planned NF4 variants need; the function makes one of them."""
    sizes: dict[str, Any] = {"tokens": job.recipe.calibration.tokens, "context": job.recipe.evaluation.context}
    model = checked.model.whole
    table = job.apart("sensitivity of NF4", "builders.sensitivity.nf4:measure", {"model": model, **texts}, **sizes)

    def make(entry: DynamicNf4) -> Planned:
        inputs: Inputs = {"sensitivity": table.whole, "model": model, "plain": plain.whole}
        wanted = entry.budget.model_dump(mode="json", exclude_none=True)
        planned = job.apart(f"plan {entry.tag}", "builders.plan.nf4:plan", inputs, budget=wanted)
        return Planned(plan=planned, file=job.apart(f"build {entry.tag}", "builders.bnb:quantize", {"model": model}, skip=planned.result["kept"]))

    return make


def settle(job: Job, planned: Mapping[str, Planned], made: Sequence[Made], diverged: Mapping[str, Found | SluiceError]) -> dict[str, Claim]:
    """By tag what came of each planned variant among `made`, which also holds the stock ones that they are compared with."""
    found = {item.variant.tag: item for item in made}
    stock = {tag: None if (like := found[tag].variant.like) is None else found[like] for tag in planned}
    return {tag: _claim(job, found[tag], planned[tag].plan, stock[tag], diverged) for tag in planned}


def _claim(job: Job, item: Made, planned: Output, stock: Made | None, diverged: Mapping[str, Found | SluiceError]) -> Claim:
    source, beaten = diverged[item.variant.tag], False
    foreseen, patterns = planned.result["predicted"], planned.result.get("unmatched", ())
    mistyped = (f"No tensor's name holds {pattern!r}, a pattern of the rules: it is mistyped, or meant for another model." for pattern in patterns)
    said = (*mistyped, *_by_probes(planned))
    predicted = Measurement(name="plan.predicted", value=foreseen["mean"], unit="nats", stderr=foreseen["stderr"], details=said)
    measured, ours = [predicted], _mean(source)
    theirs = _mean(diverged[stock.variant.tag]) if stock is not None else None
    if ours is not None:
        foretold = (planned.result.get("stock") or {}).get("mean")
        measured += [replace(ours, name="plan.measured"), *error(predicted, ours, text=theirs.value / foretold if theirs is not None and foretold else 1.0)]
    if stock is not None and theirs is not None:
        measured.append(replace(theirs, name="plan.stock"))
        if ours is not None:
            # planned NF4 is larger than the plain one, so being as good is not enough
            beaten = theirs.value < ours.value or (theirs.value == ours.value and item.variant.kind is Kind.BNB_4BIT)
            measured.append(_replaced(ours, theirs, stock, beaten=beaten))
        if beaten:
            item, source = Made(variant=item.variant, output=_stand_in(job, item, stock)), diverged[stock.variant.tag]
    if isinstance(source, Found):
        source = replace(source, measured={**source.measured, **{found.name: found for found in measured}})
    return Claim(made=item, diverged=source, mix=mix_of(item, stock, replaced=beaten))


def _stand_in(job: Job, item: Made, stock: Made) -> Output:
    """The stock variant's files under the planned one's name; those of safetensors have no tag in theirs."""
    if item.variant.kind is Kind.BNB_4BIT:
        return stock.output
    tag, inputs = item.variant.tag, {"gguf": stock.output.file()}
    return job.apart(f"stand-in {tag}", "builders.stand_in:stand_in", inputs, threaded=False, name=job.run.release.name, tag=tag)


def _by_probes(planned: Output) -> tuple[str, ...]:
    """What must be said of a prediction that does not rest on gradients."""
    if planned.result.get("provider") != "probes":
        return ()
    said = "transformers cannot run this model, so the mix was found from weighted errors and measured probes of groups of tensors through llama.cpp"
    return (f"{said}, by which a KLD is known within {planned.result['systematic']:.0%}.",)


def _replaced(ours: Measurement, theirs: Measurement, stock: Made, *, beaten: bool) -> Measurement:
    tag = stock.variant.tag
    named, short = (f"plain NF4 ({tag})", "plain NF4") if stock.variant.kind is Kind.BNB_4BIT else (f"{tag}, the stock mix of the same size,", "the stock mix")
    said = f"The planned mix has a KLD of {ours.value:.5f}, and {named} one of {theirs.value:.5f}: {short} is published under this name."
    return Measurement(name="plan.replaced", value=float(beaten), unit="count", n=1, details=(said,) if beaten else ())


def _mean(diverged: Found | SluiceError) -> Measurement | None:
    """The mean KL divergence, None where it could not be measured."""
    return diverged.measured.get("kld.mean") if isinstance(diverged, Found) else None


def error(predicted: Measurement, measured: Measurement, *, text: float = 1.0) -> list[Measurement]:
    """The measured divergence as a multiple of what the plan lets expect, so that an upper bound makes a gate of it; none when either is 0.

    `text` is the measured by the predicted divergence of the stock mix: predictions hold for the calibration text, and what another text does to both is no
    error. Below 1 is as it should be: predictions are for llama.cpp's own rounding, and rounding anew makes the file better than that.
    """
    if predicted.value <= 0 or measured.value <= 0 or text <= 0:
        return []
    expected = predicted.value * text
    ratio = measured.value / expected
    stderr = ratio * math.hypot((predicted.stderr or 0.0) / predicted.value, (measured.stderr or 0.0) / measured.value)
    alarm = f"The measured KLD of {measured.value:.5f} is {ratio:.1f} times the {expected:.5f} that the plan lets expect on this text."
    return [Measurement(name="plan.error", value=ratio, unit="ratio", stderr=stderr, details=(alarm,) if ratio > ALARM else ())]


def mix_of(item: Made, stock: Made | None, *, replaced: bool = False) -> Mix:
    """What the files of a planned variant consist of, and where they spend their bytes otherwise than the stock ones."""
    ours, theirs = _stored(item), _stored(stock) if stock else {}
    mix = Mix(stock=stock.variant.tag if stock else None, replaced=replaced, rounded="improved" in item.output.result, types=_types(ours))
    if item.variant.kind is Kind.BNB_4BIT:
        return replace(mix, kept=_kept([name for name, tensor in theirs.items() if tensor.type == "NF4" and ours[name].type != "NF4"]))
    changes = sorted(_changes(ours, theirs), key=lambda change: abs(change.bits - change.stock_bits), reverse=True)
    return replace(
        mix,
        more=tuple(change for change in changes if change.bits > change.stock_bits)[:SHOWN_CHANGES],
        fewer=tuple(change for change in changes if change.bits < change.stock_bits)[:SHOWN_CHANGES],
    )


def _stored(item: Made) -> dict[str, Stored]:
    """How each tensor is stored, by name."""
    if item.variant.kind is Kind.GGUF:
        return ggufs.stored(item.output.file().path)
    return weights.stored(item.output.whole.path)


def _kept(names: Sequence[str]) -> tuple[Kept, ...]:
    """Modules of one kind together, with their layers: `model.layers.3.mlp.down_proj.weight` is `mlp.down_proj` in layer 3."""
    found: dict[str, list[int]] = {}
    for name in names:
        match = _LAYER.fullmatch(name.removesuffix(".weight"))
        layers = found.setdefault(match["part"] if match else name.removesuffix(".weight"), [])
        if match:
            layers.append(int(match["layer"]))
    return tuple(Kept(module=module, layers=tuple(sorted(layers))) for module, layers in sorted(found.items()))


def _types(tensors: Mapping[str, Stored]) -> tuple[TypeUse, ...]:
    """How often each type occurs, and in how many bytes, most first; vectors, which no mix touches, left out."""
    matrices = [tensor for tensor in tensors.values() if tensor.matrix]
    used = {tensor.type for tensor in matrices}
    uses = [TypeUse(type=type, tensors=sum(t.type == type for t in matrices), bytes=sum(t.bytes for t in matrices if t.type == type)) for type in used]
    return tuple(sorted(uses, key=lambda use: (-use.bytes, use.type)))


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
