"""Whether planned variants are what they promised to be: each beside the stock mix of its size or plain NF4, which takes its place if it is better."""

import math
from collections.abc import Mapping
from dataclasses import replace

from builders.ggufs import Stored
from config.errors import SluiceError
from config.words import Measurement, Variant
from publishers.card import Mix, TypeUse
from service.execution.kept import Output
from service.release.kinds import Planned, kind_of
from service.release.measuring.divergence import DIVERGENCE, every_file
from service.release.products import Claim, Found, Made, Outcomes, Settled
from service.release.work import Work

ALARM = 2.0  # a divergence so many times higher than the plan lets expect is told


def settle(work: Work) -> Settled:
    """What came of each planned variant of which there are files, and with that the variants as they will be published."""
    made, diverged = every_file(work), dict(work.of(DIVERGENCE, dict))
    found = {item.variant.tag: item for item in made}
    listed = [item for item in made if item.variant in work.recipe.variants.listed()]
    claims = {}
    for item in listed:
        if item.variant.planned:
            stock = None if item.variant.like is None else found[item.variant.like]
            claims[item.variant.tag] = claim(work, item, work.output(f"plan {item.variant.tag}"), stock, diverged)
    return Settled(
        made=[claims[item.variant.tag].made if item.variant.tag in claims else item for item in listed],
        stock=[item for item in made if item not in listed],
        claims=claims,
        diverged={**diverged, **{tag: claim.diverged for tag, claim in claims.items()}},
    )


def claim(work: Work, item: Made, planned: Output, stock: Made | None, diverged: Outcomes) -> Claim:
    """What a planned variant promised and what came of it; where the stock mix of its size is better, that is published under its tag."""
    source, beaten, how = diverged[item.variant.tag], False, _planned(item.variant)
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
            beaten = theirs.value < ours.value or (theirs.value == ours.value and how.larger)
            measured.append(_replaced(ours, theirs, how.yardstick(stock.variant.tag), beaten=beaten))
        if beaten:
            item, source = Made(variant=item.variant, output=how.stand_in(work, item, stock)), diverged[stock.variant.tag]
    if isinstance(source, Found):
        source = replace(source, measured={**source.measured, **{found.name: found for found in measured}})
    return Claim(made=item, diverged=source, mix=mix_of(item, stock, replaced=beaten))


def _by_probes(planned: Output) -> tuple[str, ...]:
    """What must be said of a prediction that does not rest on gradients."""
    if planned.result.get("provider") != "probes":
        return ()
    said = "transformers cannot run this model, so the mix was found from weighted errors and measured probes of groups of tensors through llama.cpp"
    return (f"{said}, by which a KLD is known within {planned.result['systematic']:.0%}.",)


def _planned(variant: Variant) -> Planned:
    """How planned variants of its kind are held against stock ones. Raises TypeError when the kind does not say."""
    how = kind_of(variant).planned
    if how is None:
        raise TypeError(f"{variant.tag} is planned, and its kind {variant.kind} does not say how planned variants are compared")
    return how


def _replaced(ours: Measurement, theirs: Measurement, named: tuple[str, str], *, beaten: bool) -> Measurement:
    said = f"The planned mix has a KLD of {ours.value:.5f}, and {named[0]} one of {theirs.value:.5f}: {named[1]} is published under this name."
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
    how = _planned(item.variant)
    ours, theirs = how.stored(item.output), how.stored(stock.output) if stock else {}
    mix = Mix(stock=stock.variant.tag if stock else None, replaced=replaced, rounded="improved" in item.output.result, types=_types(ours))
    return how.differences(mix, ours, theirs)


def _types(tensors: Mapping[str, Stored]) -> tuple[TypeUse, ...]:
    """How often each type occurs, and in how many bytes, most first; vectors, which no mix touches, left out."""
    matrices = [tensor for tensor in tensors.values() if tensor.matrix]
    used = {tensor.type for tensor in matrices}
    uses = [TypeUse(type=type, tensors=sum(t.type == type for t in matrices), bytes=sum(t.bytes for t in matrices if t.type == type)) for type in used]
    return tuple(sorted(uses, key=lambda use: (-use.bytes, use.type)))
