"""The way of one release, from an upstream commit to published repos: the one place where the order of stages stands."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Literal

from huggingface_hub import HfApi
from pydantic import TypeAdapter

from builders import snapshot
from config.errors import SluiceError, UpstreamError
from config.recipe import Gate
from config.words import Kind, Measurement, Outcome, Patch, Sample, Variant, Verdict
from qa import gates, mmlu
from qa.relative import Reference, References
from service.execution.kept import Input, Inputs, Output
from service.release import mixes
from service.release.built import Built, Checked, Found, Made, Measured, Yardstick, weights
from service.release.groundwork import calibrated, converted, repaired, texts
from service.release.job import Job
from service.release.measuring.divergence import diverge
from service.release.measuring.questions import ask, question
from service.release.measuring.samples import Outcomes, basis, published_before, references
from service.release.publication import publish
from service.release.reporting import report
from service.store import VariantRecord

FLOAT16 = {"activation.max", "float16.failures"}  # measured only where a gate asks for it: it concerns the variant F16 alone
_MEASUREMENTS = TypeAdapter(list[Measurement])
_PATCHES = TypeAdapter(list[Patch])


def release(job: Job, api: HfApi) -> Literal["done", "blocked"]:
    """Carry out the run: every stage in order, each done once. Returns how it ended; raises the error of the stage that failed."""
    upstream = snapshot.resolve(api, job.run.release.repo, job.run.release.sha)
    if upstream.gated:
        # its owner chose who may have it; publishing it to everyone is a person's decision
        raise UpstreamError(f"{upstream.release.repo} is gated, so Sluice does not publish it again. Ask its owner, or take it off the watch list.")
    fetched = job.here("snapshot", snapshot.fetch, asdict(job.run.release), api=api, release=job.run.release)
    checked = check(job, fetched)
    if checked is None:
        report(job)
        return "blocked"
    yardstick = prepare(job, checked)
    listed, yardsticks = job.recipe.variants.listed(), job.recipe.variants.yardsticks
    files = {variant.tag: build(job, checked, variant) for variant in (*listed, *yardsticks) if not variant.planned}
    planned, unplanned = mixes.mixes(job, checked, texts(job, job.recipe.calibration), files)
    files |= {tag: item.file for tag, item in planned.items()}
    made = [Made(variant=variant, output=files[variant.tag]) for variant in listed if variant.tag in files]
    published = published_before(job, (item.variant for item in made))
    stock = [Made(variant=variant, output=files[variant.tag]) for variant in yardsticks]
    everything = [*made, *stock]
    diverged = diverge(job, checked, yardstick, everything, published)
    claims = mixes.settle(job, planned, everything, diverged)
    diverged = {**diverged, **{tag: claim.diverged for tag, claim in claims.items()}}
    made = [claims[item.variant.tag].made if item.variant.tag in claims else item for item in made]
    answered = answer(job, checked, yardstick, made, stock, diverged, published)
    found = {item.variant.tag: measure(job, checked, item, answered[item.variant.tag]) for item in made}
    built = []
    for item in made:
        compared = references(item.variant, {**answered, **found}, published)
        built.append(judged(job, checked, item, found[item.variant.tag], compared, claims.get(item.variant.tag)))
        record(job, built[-1])
    for variant in listed:
        if variant.tag in unplanned:  # every gate on the variant itself lacks its measurement, which no waiver can make good
            verdict = gates.judge(variant, job.recipe.gates, checked.measured, unmeasured(job, checked, unplanned[variant.tag]))
            unbuilt(job, variant, checked.measured, verdict)
    page = report(job, built)
    publish(job, api, upstream, checked, yardstick, built, page)
    return "done" if any(item.verdict.outcome is Outcome.PASSED for item in built) else "blocked"


def check(job: Job, fetched: Output) -> Checked | None:
    """Fix the model, convert it, calibrate, and look for what would spoil every variant; None when a gate on the release blocked them all.

    The order tells where a fault arose: the texts, the model itself, its conversion, its template, its importance matrix; the first that fails ends the run.
    """
    text = job.recipe.evaluation.divergence
    measured: dict[str, Measurement] = {}
    evaluated = {f"evaluated_{form}": files for form, files in texts(job, text).items()}
    overlap = job.apart("overlap", "qa.preflight:overlap", {**texts(job, job.recipe.calibration), **evaluated}, threaded=False)
    if blocked(job, measured, overlap):
        return None
    model = repaired(job, fetched.whole, repo=job.run.release.repo, fixes=job.recipe.fixes)
    patches = _PATCHES.validate_python(model.result["patches"])
    job.store.record_patches(job.run.id, patches)
    generation = job.recipe.evaluation.generation

    sanity = job.apart("sanity", "qa.sanity:check", {"model": model.whole}, prompts=list(generation.prompts), max_tokens=generation.max_tokens)
    if blocked(job, measured, sanity):
        return None
    base = converted(job, model, name=job.run.release.name)
    pair: dict[str, Input | Sequence[Input]] = {"model": model.whole, "gguf": base.file()}
    metadata = job.apart("metadata", "qa.preflight:metadata", pair, threaded=False)
    if blocked(job, measured, metadata):
        return None
    parity = job.apart("parity", "qa.parity:compare", {**pair, "texts": [job.data(path) for path in text.plain or text.chat]})
    if blocked(job, measured, parity):
        return None
    if any(gate.measure in FLOAT16 for gate in job.recipe.gates):
        texts_read = [job.data(path) for path in (*text.chat, *text.plain)]
        if blocked(job, measured, job.apart("activations", "qa.activations:check", {"model": model.whole, "texts": texts_read})):
            return None
    templates = job.apart("templates", "qa.templates:check", pair)
    if blocked(job, measured, templates):
        return None
    calibration = job.recipe.calibration
    imatrix = calibrated(job, model.whole, base, texts(job, calibration), tokens=calibration.tokens, context=job.recipe.evaluation.context)
    inputs: Inputs = {"imatrix": imatrix.file(), "gguf": base.file()}
    if blocked(job, measured, job.apart("imatrix check", "qa.preflight:imatrix", inputs, threaded=False), last=True):
        return None
    return Checked(fetched=fetched, model=model, base=base, imatrix=imatrix, patches=patches, measured=measured)


def blocked(job: Job, measured: dict[str, Measurement], output: Output, *, last: bool = False) -> bool:
    """Add a check's measurements, and judge the gates on the release that can be judged by now; when one fails, every variant is blocked by it."""
    measured.update(measurements(output))
    due: list[Gate] = [gate for gate in job.recipe.gates if gate.scope == "release" and (last or gate.measure in measured)]
    verdicts = [(variant, gates.judge(variant, due, measured, {}, job.waivers)) for variant in job.recipe.variants.listed()]
    # a kind of variant that none of these gates is for is not blocked by them
    if any(verdict.outcome is Outcome.PASSED or not verdict.results for _, verdict in verdicts):
        return False
    for variant, verdict in verdicts:
        unbuilt(job, variant, measured, verdict)
    return True


def prepare(job: Job, checked: Checked) -> Yardstick:
    """Cut the evaluation text into windows, and let the 16-bit model answer the first questions, once for each engine that variants are measured with."""
    evaluation = job.recipe.evaluation
    inputs: Inputs = {"model": checked.model.whole, **texts(job, evaluation.divergence)}
    sizes = {"tokens": evaluation.divergence.tokens, "most_tokens": evaluation.divergence.most}
    windows = job.apart("evaluation text", "qa.texts:prepare", inputs, threaded=False, context=evaluation.context, **sizes)
    asked = {"shots": evaluation.mmlu.shots, "questions_per_subject": evaluation.mmlu.questions_per_subject, "most": evaluation.mmlu.most}
    questions = job.apart("evaluation questions", "qa.measure:questions", {"mmlu": job.data(evaluation.mmlu.data)}, threaded=False, **asked)
    first: int = questions.result["looks"][0]
    folders = any(variant.kind is not Kind.GGUF for variant in job.recipe.variants.listed())
    return Yardstick(
        windows=windows,
        questions=questions,
        gguf=ask(job, "reference", checked.base.file(), 0, first),
        transformers=ask(job, "reference 16bit", checked.model.whole, 0, first) if folders else None,
    )


def build(job: Job, checked: Checked, variant: Variant) -> Output:
    """The files of a variant that is not planned."""
    match variant.kind:
        case Kind.SIXTEEN_BIT:
            return checked.model
        case Kind.BNB_4BIT:
            return job.apart(f"build {variant.tag}", "builders.bnb:quantize", {"model": checked.model.whole})
        case Kind.GGUF:
            inputs = {"gguf": checked.base.file(), "imatrix": checked.imatrix.file()}
            return job.apart(f"build {variant.tag}", "builders.quantize:quantize", inputs, type=variant.tag, name=job.run.release.name)


def answer(
    job: Job,
    checked: Checked,
    yardstick: Yardstick,
    made: Sequence[Made],
    stock: Sequence[Made],
    diverged: Outcomes,
    published: Mapping[str, Reference | None],
) -> dict[str, Found | SluiceError]:
    """What `diverge` found with what the variants' answers are worth; the stock mixes are asked only where a gate compares answers with theirs."""
    compared = any(gate.relative_to == "stock" and gate.measure.partition(".")[0] in mmlu.NAMES for gate in job.recipe.gates)
    items = [item for item in (*made, *(stock if compared else ())) if isinstance(diverged[item.variant.tag], Found)]
    answered = dict(diverged)
    for tag, item in question(job, checked, yardstick, items, published).items():
        found = diverged[tag]
        answered[tag] = found.also(item) if isinstance(found, Found) and isinstance(item, Found) else item
    return answered


def measure(job: Job, checked: Checked, item: Made, answered: Found | SluiceError) -> Found:
    """Everything that was found about the variant, and, where measuring itself failed, why: a gate without its measurement blocks.

    `answered` is what `answer` found.
    """
    generation, variant = job.recipe.evaluation.generation, item.variant
    if variant.kind is Kind.GGUF:
        inputs = {"reference": checked.base.file(), "variant": item.output.file()}
    else:
        inputs = {"reference": checked.model.whole, "variant": item.output.whole}
    prompts, most = list(generation.prompts), generation.max_tokens
    try:
        if isinstance(answered, SluiceError):
            raise answered
        output = job.apart(f"measure {variant.tag}", "qa.measure:check", inputs, prompts=prompts, max_tokens=most)
    except SluiceError as error:
        return Found(measured=checked.measured, errors=unmeasured(job, checked, error))
    own = Found(measured=measurements(output), errors={}, samples=(Sample(basis=basis(("generation",), prompts, most)),))
    return Found(measured=checked.measured, errors={}).also(answered).also(own)


def judged(job: Job, checked: Checked, item: Made, own: Found, compared: References, claim: mixes.Claim | None) -> Built:
    """The variant with its verdict; `compared` is what gates can be relative to."""
    verdict = gates.judge(item.variant, job.recipe.gates, own.measured, own.errors, job.waivers, samples=own.samples, references=compared)
    return Built(
        variant=item.variant,
        output=item.output,
        bpw=bits_per_weight(checked, item.output),
        measured=own.measured,
        verdict=verdict,
        samples=own.samples,
        positions=own.positions,
        mix=claim.mix if claim else None,
    )


def unmeasured(job: Job, checked: Checked, error: SluiceError) -> dict[str, str]:
    """Why each measurement that gates want of a variant, and not of the release, is missing."""
    return dict.fromkeys({gate.measure for gate in job.recipe.gates} - checked.measured.keys(), str(error))


def unbuilt(job: Job, variant: Variant, measured: Measured, verdict: Verdict) -> None:
    """Record a variant of which there is no file."""
    found, position = tuple(measured.values()), job.recipe.variants.listed().index(variant)
    record = VariantRecord(variant=variant, file=None, bytes=None, bpw=None, measurements=found, verdict=verdict)
    job.store.record_variant(job.run.id, record, position=position)
    job.verdict(variant, verdict)


def record(job: Job, item: Built) -> None:
    """Write the variant's row, its measurements and its verdict."""
    kept = VariantRecord(
        variant=item.variant,
        file=item.output.result.get("file"),
        bytes=item.bytes,
        bpw=item.bpw,
        measurements=tuple(item.measured.values()),
        verdict=item.verdict,
        samples=item.samples,
    )
    job.store.record_variant(job.run.id, kept, position=job.recipe.variants.listed().index(item.variant))
    job.verdict(item.variant, item.verdict)


def bits_per_weight(checked: Checked, output: Output) -> float:
    """Of the whole file or files, so that it and the size tell the same story."""
    return 8 * sum(file.bytes for file in weights(output)) / int(checked.base.result["parameters"])


def measurements(output: Output) -> Measured:
    """A measuring stage's result by name."""
    return {item.name: item for item in _MEASUREMENTS.validate_python(output.result["measurements"])}
