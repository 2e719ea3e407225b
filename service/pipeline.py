"""The way of one release, from an upstream commit to published repos: the one place where the order of stages stands."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal

from huggingface_hub import HfApi
from pydantic import TypeAdapter

from builders import snapshot
from config.errors import SluiceError, UpstreamError
from config.recipe import Gate, Text
from config.rules import FAMILIES, FIXES
from config.words import Kind, Measurement, Outcome, Patch, Variant
from qa import gates
from qa.relative import References
from service import planning
from service.built import Built, Checked, Found, Made, Measured, Yardstick, weights
from service.divergence import diverge, published_before, references
from service.job import Job
from service.publication import publish
from service.reporting import report
from service.stages import Input, Inputs, Output

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
    planned, unplanned = planning.mixes(job, checked, texts(job, job.recipe.calibration))
    listed = job.recipe.variants.listed()
    made = [Made(variant=variant, output=build(job, checked, variant, planned)) for variant in listed if variant.tag not in unplanned]
    published = published_before(job, (item.variant for item in made))
    everything = [*made, *planning.yardsticks(job, checked)]
    diverged = diverge(job, checked, yardstick, everything, published)
    claims = planning.settle(job, planned, everything, diverged)
    diverged = {**diverged, **{tag: claim.diverged for tag, claim in claims.items()}}
    made = [claims[item.variant.tag].made if item.variant.tag in claims else item for item in made]
    found = {item.variant.tag: measure(job, checked, yardstick, item, diverged[item.variant.tag]) for item in made}
    built = []
    for item in made:
        compared = references(item.variant, {**diverged, **found}, published)
        built.append(judged(job, checked, item, found[item.variant.tag], compared, claims.get(item.variant.tag)))
        record(job, listed.index(item.variant), built[-1])
    for tag, error in unplanned.items():
        missing(job, checked, next(variant for variant in listed if variant.tag == tag), error)
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
    rules = {"rules": job.data(FIXES), "families": job.data(FAMILIES)}  # an edited rule must not be taken for a stage that is done
    inputs: Inputs = {"snapshot": fetched.whole, **rules}
    model = job.apart("fix", "builders.fixes:repair", inputs, threaded=False, repo=job.run.release.repo, fixes=job.recipe.fixes)
    patches = _PATCHES.validate_python(model.result["patches"])
    job.store.record_patches(job.run.id, patches)
    generation = job.recipe.evaluation.generation

    sanity = job.apart("sanity", "qa.sanity:check", {"model": model.whole}, prompts=list(generation.prompts), max_tokens=generation.max_tokens)
    if blocked(job, measured, sanity):
        return None
    base = job.apart("convert", "builders.convert:convert", {"model": model.whole}, threaded=False, name=job.run.release.name)
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
    imatrix = calibrate(job, model, base)
    inputs = {"imatrix": imatrix.file(), "gguf": base.file()}
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
    found = tuple(measured.values())
    for position, (variant, verdict) in enumerate(verdicts):
        job.store.record_variant(job.run.id, variant=variant, file=None, bytes=None, bpw=None, measurements=found, verdict=verdict, position=position)
        job.verdict(variant, verdict)
    return True


def calibrate(job: Job, model: Output, base: Output) -> Output:
    """The importance matrix of the 16-bit GGUF."""
    inputs: Inputs = {"model": model.whole, "gguf": base.file(), **texts(job, job.recipe.calibration)}
    return job.apart("imatrix", "builders.calibrate:imatrix", inputs, tokens=job.recipe.calibration.tokens, context=job.recipe.evaluation.context)


def prepare(job: Job, checked: Checked) -> Yardstick:
    """Cut the evaluation text into windows, and let the 16-bit model answer the questions, once for each engine."""
    evaluation = job.recipe.evaluation
    inputs: Inputs = {"model": checked.model.whole, **texts(job, evaluation.divergence)}
    sizes = {"tokens": evaluation.divergence.tokens, "most_tokens": evaluation.divergence.most}
    windows = job.apart("evaluation text", "qa.texts:prepare", inputs, threaded=False, context=evaluation.context, **sizes)
    questions = {"mmlu": job.data(evaluation.mmlu.data)}
    asked: dict[str, Any] = {"form": evaluation.mmlu.form, "shots": evaluation.mmlu.shots, "questions_per_subject": evaluation.mmlu.questions_per_subject}
    return Yardstick(
        windows=windows,
        gguf=job.apart("reference", "qa.measure:reference", {"gguf": checked.base.file(), **questions}, **asked),
        transformers=job.apart("reference 16bit", "qa.measure:reference_transformers", {"model": checked.model.whole, **questions}, **asked),
    )


def build(job: Job, checked: Checked, variant: Variant, planned: Mapping[str, planning.Planned]) -> Output:
    """The variant's files."""
    if variant.tag in planned:
        return planned[variant.tag].file
    match variant.kind:
        case Kind.SIXTEEN_BIT:
            return checked.model
        case Kind.BNB_4BIT:
            return job.apart(f"build {variant.tag}", "builders.bnb:quantize", {"model": checked.model.whole})
        case Kind.GGUF:
            inputs = {"gguf": checked.base.file(), "imatrix": checked.imatrix.file()}
            return job.apart(f"build {variant.tag}", "builders.quantize:quantize", inputs, type=variant.tag, name=job.run.release.name)


def measure(job: Job, checked: Checked, yardstick: Yardstick, item: Made, diverged: Found | SluiceError) -> Found:
    """Everything that was found about the variant, and, where measuring itself failed, why: a gate without its measurement blocks.

    `diverged` is what `diverge` found.
    """
    evaluation, variant = job.recipe.evaluation, item.variant
    params: dict[str, Any] = {
        "form": evaluation.mmlu.form,
        "shots": evaluation.mmlu.shots,
        "questions_per_subject": evaluation.mmlu.questions_per_subject,
        "prompts": list(evaluation.generation.prompts),
        "max_tokens": evaluation.generation.max_tokens,
    }
    if variant.kind is Kind.GGUF:
        function, answers, files = "qa.measure:gguf", yardstick.gguf, {"reference": checked.base.file(), "variant": item.output.file()}
    else:
        function, answers, files = "qa.measure:transformers", yardstick.transformers, {"reference": checked.model.whole, "variant": item.output.whole}
    inputs: Inputs = {**files, "answers": answers.file("answers.json"), "mmlu": job.data(evaluation.mmlu.data)}
    try:
        if isinstance(diverged, SluiceError):
            raise diverged
        output = job.apart(f"measure {variant.tag}", function, inputs, **params)
    except SluiceError as error:
        missing = {gate.measure for gate in job.recipe.gates} - checked.measured.keys()
        return Found(measured=checked.measured, errors=dict.fromkeys(missing, str(error)), sample=None)
    return Found(measured={**checked.measured, **diverged.measured, **measurements(output)}, errors={}, sample=diverged.sample, positions=diverged.positions)


def judged(job: Job, checked: Checked, item: Made, own: Found, compared: References, claim: planning.Claim | None) -> Built:
    """The variant with its verdict; `compared` is what gates can be relative to."""
    verdict = gates.judge(item.variant, job.recipe.gates, own.measured, own.errors, job.waivers, sample=own.sample, references=compared)
    return Built(
        variant=item.variant,
        output=item.output,
        bpw=bits_per_weight(checked, item.output),
        measured=own.measured,
        verdict=verdict,
        sample=own.sample,
        positions=own.positions,
        mix=claim.mix if claim else None,
    )


def missing(job: Job, checked: Checked, variant: Variant, error: SluiceError) -> None:
    """Record a variant that could not be built: every gate on the variant itself lacks its measurement, which no waiver can make good."""
    why = dict.fromkeys({gate.measure for gate in job.recipe.gates} - checked.measured.keys(), str(error))
    verdict = gates.judge(variant, job.recipe.gates, checked.measured, why)
    found, position = tuple(checked.measured.values()), job.recipe.variants.listed().index(variant)
    job.store.record_variant(job.run.id, variant=variant, file=None, bytes=None, bpw=None, measurements=found, verdict=verdict, position=position)
    job.verdict(variant, verdict)


def record(job: Job, position: int, item: Built) -> None:
    """Write the variant's row, its measurements and its verdict."""
    job.store.record_variant(
        job.run.id,
        variant=item.variant,
        file=item.output.result.get("file"),
        bytes=item.bytes,
        bpw=item.bpw,
        measurements=tuple(item.measured.values()),
        verdict=item.verdict,
        position=position,
        sample=item.sample,
    )
    job.verdict(item.variant, item.verdict)


def bits_per_weight(checked: Checked, output: Output) -> float:
    """Of the whole file or files, so that it and the size tell the same story."""
    return 8 * sum(file.bytes for file in weights(output)) / int(checked.base.result["parameters"])


def measurements(output: Output) -> Measured:
    """A measuring stage's result by name."""
    return {item.name: item for item in _MEASUREMENTS.validate_python(output.result["measurements"])}


def texts(job: Job, text: Text) -> dict[str, list[Input]]:
    """The recipe's text files as inputs of a stage."""
    return {"chat": [job.data(path) for path in text.chat], "plain": [job.data(path) for path in text.plain]}
