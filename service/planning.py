"""Planned mixes: sensitivities, plan and file of each, and whether it is what it promised to be, beside the stock mix of the same size."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from builders.ggufs import Stored, stored
from config.errors import SluiceError
from config.plans import Budget, Profile, Rules
from config.words import Kind, Measurement, Variant
from publishers.card import Change, Mix, TypeUse
from service.built import Checked, Found, Made
from service.job import Job
from service.stages import Input, Inputs, Output
from service.workbench import Workbench

ALARM = 2.0  # a divergence so many times higher than the plan lets expect is told
SHOWN_CHANGES = 4  # kinds of tensors that a card names on either side
NOTABLE = 0.05  # bits per weight: smaller differences to the stock mix are not told


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A planned mix: what was foretold, and the file made from it."""

    plan: Output
    file: Output


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What a planned variant promised, what came of it, and what is published under its tag."""

    made: Made
    diverged: Found | SluiceError  # with the measurements `plan.…`
    mix: Mix


def sensitivity(bench: Workbench, model: Output, base: Output, imatrix: Output, texts: Mapping[str, Sequence[Input]], *, tokens: int, context: int) -> Output:
    """The table from which every mix of the model is planned, with the completed importances: once for all budgets."""
    inputs: Inputs = {"model": model.whole, "gguf": base.file(), "imatrix": imatrix.file(), "chat": texts["chat"], "plain": texts["plain"]}
    return bench.apart("sensitivity", "builders.sensitivity.measure:measure", inputs, tokens=tokens, context=context)


def plan(bench: Workbench, name: str, base: Output, table: Output, *, budget: Budget, profile: Profile, rules: Rules) -> Output:
    """The best mix within a budget; `mix.json` holds each tensor's type."""
    inputs: Inputs = {"sensitivity": table.whole, "gguf": base.file(), "imatrix": table.file("importances.gguf")}
    wanted = budget.model_dump(mode="json", exclude_none=True)
    return bench.apart(name, "builders.plan.stage:plan", inputs, budget=wanted, profile=profile, rules=rules.model_dump(mode="json"))


def hessians(bench: Workbench, model: Output, base: Output, texts: Mapping[str, Sequence[Input]], *, tokens: int, context: int) -> Output:
    """How errors of columns count together: what rounding needs, once for all mixes."""
    inputs: Inputs = {"model": model.whole, "gguf": base.file(), "chat": texts["chat"], "plain": texts["plain"]}
    return bench.apart("hessians", "builders.rounding.collect:collect", inputs, tokens=tokens, context=context)


def build(bench: Workbench, base: Output, table: Output, planned: Output, statistics: Output | None, *, name: str, tag: str) -> Output:
    """The file NAME-TAG.gguf in which every tensor has its planned type, rounded anew when there are statistics for it."""
    inputs: Inputs = {"gguf": base.file(), "imatrix": table.file("importances.gguf"), "mix": planned.file("mix.json")}
    built = bench.apart(f"build {tag}", "builders.quantize:mixed", inputs, name=name, tag=tag)
    if statistics is None:
        return built
    inputs = {"quantized": built.file(), "gguf": base.file(), "statistics": statistics.whole}
    return bench.apart(f"round {tag}", "builders.rounding.improve:improve", inputs)


def mixes(job: Job, checked: Checked, texts: Mapping[str, Sequence[Input]]) -> tuple[dict[str, Planned], dict[str, SluiceError]]:
    """The plan and the file of each planned variant of the recipe, by tag, or why there is none: stock mixes do without them."""
    entries = job.recipe.variants.dynamic
    if not entries:
        return {}, {}
    tokens, context = job.recipe.calibration.tokens, job.recipe.evaluation.context
    try:
        table = sensitivity(job, checked.model, checked.base, checked.imatrix, texts, tokens=tokens, context=context)
        rounded = any(entry.rounding for entry in entries)
        statistics = hessians(job, checked.model, checked.base, texts, tokens=tokens, context=context) if rounded else None
    except SluiceError as error:
        return {}, {entry.tag: error for entry in entries}
    made: dict[str, Planned] = {}
    failed: dict[str, SluiceError] = {}
    for entry in entries:
        try:
            planned = plan(job, f"plan {entry.tag}", checked.base, table, budget=entry.budget, profile=entry.profile, rules=entry.rules)
            file = build(job, checked.base, table, planned, statistics if entry.rounding else None, name=job.run.release.name, tag=entry.tag)
            made[entry.tag] = Planned(plan=planned, file=file)
        except SluiceError as error:
            failed[entry.tag] = error
    return made, failed


def settle(job: Job, planned: Mapping[str, Planned], made: Sequence[Made], diverged: Mapping[str, Found | SluiceError]) -> dict[str, Claim]:
    """By tag what came of each planned variant among `made`, which also holds the stock mixes that they are compared with."""
    found = {item.variant.tag: item for item in made}
    stock = {entry.tag: found[entry.like] if entry.like else None for entry in job.recipe.variants.dynamic if entry.tag in planned}
    return {tag: _claim(job, found[tag], planned[tag].plan, stock[tag], diverged) for tag in stock}


def _claim(job: Job, item: Made, planned: Output, stock: Made | None, diverged: Mapping[str, Found | SluiceError]) -> Claim:
    tag, source, beaten = item.variant.tag, diverged[item.variant.tag], False
    predicted = Measurement(name="plan.predicted", value=planned.result["predicted"]["mean"], unit="nats", stderr=planned.result["predicted"]["stderr"])
    measured, ours = [predicted], _mean(source)
    theirs = _mean(diverged[stock.variant.tag]) if stock is not None else None
    if ours is not None:
        foretold = (planned.result.get("stock") or {}).get("mean")
        measured += [replace(ours, name="plan.measured"), *error(predicted, ours, text=theirs.value / foretold if theirs is not None and foretold else 1.0)]
    if stock is not None and theirs is not None:
        measured.append(replace(theirs, name="plan.stock"))
        if ours is not None:
            beaten = theirs.value < ours.value
            measured.append(_replaced(ours, theirs, stock, beaten=beaten))
        if beaten:
            inputs = {"gguf": stock.output.file()}
            output = job.apart(f"stand-in {tag}", "builders.stand_in:stand_in", inputs, threaded=False, name=job.run.release.name, tag=tag)
            item, source = Made(variant=item.variant, output=output), diverged[stock.variant.tag]
    if isinstance(source, Found):
        source = replace(source, measured={**source.measured, **{found.name: found for found in measured}})
    return Claim(made=item, diverged=source, mix=mix_of(item, stock, replaced=beaten))


def _replaced(ours: Measurement, theirs: Measurement, stock: Made, *, beaten: bool) -> Measurement:
    said = (
        f"The planned mix has a KLD of {ours.value:.5f}, and {stock.variant.tag}, the stock mix of the same size, one of {theirs.value:.5f}: "
        "the stock mix is published under this name."
    )
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
    """What the file of a planned variant consists of, and where it spends its bytes otherwise than the stock mix."""
    ours = stored(item.output.file().path)
    theirs = stored(stock.output.file().path) if stock else {}
    changes = sorted(_changes(ours, theirs), key=lambda change: abs(change.bits - change.stock_bits), reverse=True)
    return Mix(
        stock=stock.variant.tag if stock else None,
        replaced=replaced,
        rounded="improved" in item.output.result,
        types=_types(ours),
        more=tuple(change for change in changes if change.bits > change.stock_bits)[:SHOWN_CHANGES],
        fewer=tuple(change for change in changes if change.bits < change.stock_bits)[:SHOWN_CHANGES],
    )


def _types(tensors: Mapping[str, Stored]) -> tuple[TypeUse, ...]:
    """How often each type occurs, and in how many bytes, most first; vectors, which no mix touches, left out."""
    matrices = [tensor for tensor in tensors.values() if tensor.matrix]
    used = {tensor.type for tensor in matrices}
    uses = [TypeUse(type=type, tensors=sum(t.type == type for t in matrices), bytes=sum(t.bytes for t in matrices if t.type == type)) for type in used]
    return tuple(sorted(uses, key=lambda use: (-use.bytes, use.type)))


def _changes(ours: Mapping[str, Stored], theirs: Mapping[str, Stored]) -> list[Change]:
    """Kinds of tensors whose bits per weight differ, all layers together."""
    changes = []
    for kind in sorted({_kind(name) for name in theirs}):
        names = [name for name in theirs if _kind(name) == kind and name in ours and theirs[name].matrix]
        if values := sum(theirs[name].values for name in names):
            bits, stock_bits = (8 * sum(side[name].bytes for name in names) / values for side in (ours, theirs))
            if abs(bits - stock_bits) >= NOTABLE:
                changes.append(Change(tensors=kind, bits=bits, stock_bits=stock_bits))
    return changes


def _kind(name: str) -> str:
    """`ffn_down` of `blk.7.ffn_down.weight`, `token_embd` of `token_embd.weight`."""
    return ".".join(part for part in name.removesuffix(".weight").split(".") if part != "blk" and not part.isdigit())


def yardsticks(job: Job, checked: Checked) -> list[Made]:
    """The stock mixes that planned ones are compared with and that the recipe does not publish."""
    inputs = {"gguf": checked.base.file(), "imatrix": checked.imatrix.file()}
    return [
        Made(
            variant=Variant(tag=tag, kind=Kind.GGUF),
            output=job.apart(f"build {tag}", "builders.quantize:quantize", inputs, type=tag, name=job.run.release.name),
        )
        for tag in job.recipe.variants.yardsticks
    ]
