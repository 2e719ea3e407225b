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
from service import planning
from service.built import Built, Checked, Made, Measured, Yardstick, weights
from service.groups import groups, memory_for_models
from service.job import Job
from service.publication import publish
from service.stages import Input, Inputs, Output

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
        return "blocked"
    yardstick = prepare(job, checked)
    planned = planning.mixes(job, checked, texts(job, job.recipe.calibration))
    made = [Made(variant=variant, output=build(job, checked, variant, planned)) for variant in job.recipe.variants.listed()]
    stock = planning.yardsticks(job, checked)
    diverged = diverge(job, checked, yardstick, [*made, *stock])
    claims = planning.settle(job, planned, [*made, *stock], diverged)
    built = []
    for position, item in enumerate(made):
        built.append(judge(job, checked, yardstick, item, diverged.get(item.variant.tag), claims.get(item.variant.tag)))
        record(job, position, built[-1])
    publish(job, api, upstream, checked, yardstick, built)
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
    windows = job.apart("evaluation text", "qa.texts:prepare", inputs, threaded=False, tokens=evaluation.divergence.tokens, context=evaluation.context)
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


def diverge(job: Job, checked: Checked, yardstick: Yardstick, made: Sequence[Made]) -> Mapping[str, Input | SluiceError]:
    """By tag the file that holds a GGUF variant's divergence, or why there is none; the 16-bit model is evaluated once for each group that memory holds."""
    found: dict[str, Input | SluiceError] = {}

    def together(name: str, group: Sequence[Made]) -> None:
        inputs: Inputs = {"reference": checked.base.file(), "variants": [item.output.file() for item in group], "windows": yardstick.windows.whole}
        output = job.apart(name, "qa.group:measure", inputs, context=job.recipe.evaluation.context)
        found.update({item.variant.tag: output.file(f"{position}.json") for position, item in enumerate(group)})

    for number, group in enumerate(groups(made, checked.base, memory_for_models(job.settings)), start=1):
        try:
            together(f"divergence {number}", group)
        except SluiceError:  # one variant that ends the process must not cost the others their figures
            for item in group:
                try:
                    together(f"divergence {item.variant.tag}", [item])
                except SluiceError as error:
                    found[item.variant.tag] = error
    return found


def judge(job: Job, checked: Checked, yardstick: Yardstick, item: Made, diverged: Input | SluiceError | None, claim: planning.Claim | None) -> Built:
    """The variant measured and judged; of a planned one what its claim says is published under its tag, with what it promised."""
    if claim is not None:
        item, diverged = claim.made, claim.diverged
    measured, errors = measure(job, checked, yardstick, item, diverged)
    if claim is not None:
        measured = {**measured, **claim.measured}
    verdict = gates.judge(item.variant, job.recipe.gates, measured, errors, job.waivers)
    bpw = bits_per_weight(checked, item.output)
    return Built(variant=item.variant, output=item.output, bpw=bpw, measured=measured, verdict=verdict, mix=claim.mix if claim else None)


def measure(job: Job, checked: Checked, yardstick: Yardstick, item: Made, diverged: Input | SluiceError | None) -> tuple[Measured, Mapping[str, str]]:
    """What was found about the variant, and, where measuring itself failed, why: a gate without its measurement blocks.

    `diverged` is what `diverge` found about a GGUF variant; one in safetensors is compared with the 16-bit model here.
    """
    evaluation, variant = job.recipe.evaluation, item.variant
    mmlu = job.data(evaluation.mmlu.data)
    params: dict[str, Any] = {
        "form": evaluation.mmlu.form,
        "shots": evaluation.mmlu.shots,
        "questions_per_subject": evaluation.mmlu.questions_per_subject,
        "prompts": list(evaluation.generation.prompts),
        "max_tokens": evaluation.generation.max_tokens,
    }
    try:
        if isinstance(diverged, SluiceError):
            raise diverged
        if diverged is not None:
            answers, files = yardstick.gguf.file("answers.json"), {"reference": checked.base.file(), "variant": item.output.file()}
            output = job.apart(f"measure {variant.tag}", "qa.measure:gguf", {**files, "answers": answers, "diverged": diverged, "mmlu": mmlu}, **params)
        else:
            answers, files = yardstick.transformers.file("answers.json"), {"reference": checked.model.whole, "variant": item.output.whole}
            inputs: Inputs = {**files, "answers": answers, "windows": yardstick.windows.whole, "mmlu": mmlu}
            output = job.apart(f"measure {variant.tag}", "qa.measure:transformers", inputs, **params, context=evaluation.context)
    except SluiceError as error:
        missing = {gate.measure for gate in job.recipe.gates if not gate.measure.startswith("plan.")} - checked.measured.keys()
        return checked.measured, dict.fromkeys(missing, str(error))
    return {**checked.measured, **measurements(output)}, {}


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
