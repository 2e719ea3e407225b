"""From the upstream commit to the 16-bit model, and what would spoil every variant: looked for before any is built.

The order tells where a fault arose: the texts, the model itself, its conversion, its template, its importance matrix; the first that fails ends the run.
Text that the model writes comes after its template, and the comparison of texts after that.
"""

from collections.abc import Iterator
from dataclasses import replace

from pydantic import TypeAdapter

from builders import vectors
from builders.snapshot import Upstream
from config.errors import UpstreamError
from config.recipe import Recipe
from config.words import Hold, Patch
from service.execution.kept import Output
from service.release import costs, functions, rollback, taking
from service.release.checks import gates, terms
from service.release.functions import GGUF, MODEL
from service.release.graph import Call, Data, FileOf, OfRelease, Phase, Source, Stage, Whole
from service.release.work import Held, Work

_PATCHES = TypeAdapter(list[Patch])
_HOLDS = TypeAdapter(list[Hold])
_PAIR: dict[str, Source] = {"model": MODEL, "gguf": GGUF}


def stages(recipe: Recipe) -> Iterator[Stage]:
    """Every stage of this part, those that are measured on the release with the names of their measurements."""
    yield Stage(name="upstream", phase=Phase.EXAMINE, does="ask the Hub what the release is", work=_upstream)
    yield Stage(name="snapshot", phase=Phase.EXAMINE, does="download it", work=_snapshot, also=("upstream",), unit="bytes", cost=costs.snapshot)
    parts = (_model(recipe), _original(recipe), _conversion(recipe), _template(recipe), _own_text(recipe))
    yield from (replace(stage, gated=bool(stage.measures)) for part in parts for stage in part)


def _model(recipe: Recipe) -> Iterator[Stage]:
    """What everything else is made from."""
    yield Stage(
        name="fix",
        phase=Phase.EXAMINE,
        does="patch its faults",
        work=_fix,
        also=("snapshot",),
        after=() if _written(recipe) else ("text overlap",),
        cost=costs.fix,
    )
    yield Stage(
        name="patches", phase=Phase.EXAMINE, does="record the patches", work=lambda work: work.job.record_patches(patches(work)), also=("fix",), records=True
    )
    yield Stage(
        name="approval",
        phase=Phase.EXAMINE,
        does="hold it if there is something that a person has to decide",
        work=_approval,
        also=("upstream", "snapshot", "fix"),
        records=True,
    )
    yield Stage(
        name="convert",
        phase=Phase.EXAMINE,
        does="convert it to a 16-bit GGUF file",
        work=functions.convert(name=OfRelease(name="name"), repo=OfRelease(name="repo"), mtp=recipe.variants.multi_token_prediction),
        after=("sanity",),
        unit="tensors",
        cost=costs.convert,
    )
    yield Stage(
        name="imatrix",
        phase=Phase.EXAMINE,
        does="measure how strongly each input of each matrix is used",
        work=functions.imatrix(MODEL, GGUF, functions.calibration(recipe.calibration, recipe.evaluation.context)),
        after=("templates", *(("activations",) if _float16(recipe) else ()), *(("text overlap",) if _written(recipe) else ())),
        unit="chunks",
        cost=costs.imatrix,
    )


def _original(recipe: Recipe) -> Iterator[Stage]:
    """What is measured on the texts, and on the model as it is."""
    evaluation = recipe.evaluation
    evaluated = {f"evaluated_{form}": files for form, files in functions.texts(evaluation.divergence, "evaluation").items()}
    overlap = Call(function="qa.preflight:overlap", inputs={**functions.texts(recipe.calibration, "calibration"), **evaluated}, threaded=False)
    yield Stage(
        name="text overlap",
        phase=Phase.EXAMINE,
        does="look for evaluation text in the calibration text",
        work=overlap,
        after=("snapshot",),
        cost=costs.overlap,
        measures=("overlap.share", "overlap.shared"),
    )
    chat = [Data(path=path) for path in dict.fromkeys((*recipe.calibration.chat, *evaluation.divergence.chat))]
    if chat:
        yield Stage(
            name="conversations",
            phase=Phase.EXAMINE,
            does="look whether the template takes the conversations of the data",
            work=Call(function="qa.conversations:check", inputs={"model": functions.voice(MODEL, chat), "chat": chat}, threaded=False),
            after=("approval",),
            unit="conversations",
            cost=costs.conversations,
            measures=("conversations.adapted", "conversations.skipped"),
        )
    asked = functions.greedy(evaluation.generation)
    yield Stage(
        name="sanity",
        phase=Phase.EXAMINE,
        does="let the model answer in transformers",
        work=Call(function="qa.sanity:check", inputs={"model": MODEL}, params=asked),
        after=("approval",),
        unit="prompts",
        cost=costs.sanity,
        measures=("sanity.failures", "sanity.loops"),
    )


def _conversion(recipe: Recipe) -> Iterator[Stage]:
    """What is measured on the 16-bit GGUF file."""
    text = recipe.evaluation.divergence
    files = functions.texts(text, "evaluation")
    numbers: dict[str, Source] = {"model": functions.network(MODEL, () if text.plain else files["chat"]), "gguf": functions.numbers(GGUF)}
    yield Stage(
        name="metadata",
        phase=Phase.EXAMINE,
        does="compare the GGUF file's header with config.json",
        work=Call(function="qa.preflight:metadata", inputs=_PAIR, threaded=False),
        cost=costs.metadata,
        measures=("metadata.failures", "metadata.lacking"),
    )
    yield Stage(
        name="parity",
        phase=Phase.EXAMINE,
        does="compare the GGUF file in llama.cpp with the model in transformers",
        work=Call(function="qa.parity:compare", inputs={**numbers, "texts": functions.compared(text)}),
        after=("metadata",),
        unit="windows",
        cost=costs.parity,
        measures=("parity.token_mismatches", "parity.known", "parity.departures", "parity.kld", "parity.max_difference"),
    )
    yield Stage(
        name="long text",
        phase=Phase.EXAMINE,
        does="compare both on a long text, beyond windows of attention and scaled positions",
        work=Call(function="qa.long_text:compare", inputs={**numbers, "texts": functions.compared(text)}),
        after=("parity",),
        cost=costs.long_text,
        measures=("long.kld", "long.known", "long.unseen"),
    )
    if _float16(recipe):
        yield Stage(
            name="activations",
            phase=Phase.EXAMINE,
            does="look for the largest activation",
            work=functions.activations(MODEL, files),
            after=("parity",),
            unit="windows",
            cost=costs.activations,
            measures=gates.ON_REQUEST,
        )


def _template(recipe: Recipe) -> Iterator[Stage]:
    """What is measured of template and tokenizer in both engines, and of what rests on them."""
    yield Stage(
        name="templates",
        phase=Phase.EXAMINE,
        does="compare what both engines make of template and tokenizer",
        work=Call(function="qa.templates:check", inputs=_PAIR),
        after=("parity",),
        cost=costs.templates,
        measures=("template.failures", "template.system", "template.remarks", "tokenizer.mismatches", "tokenizer.known", "tokenizer.departures"),
    )
    yield Stage(
        name="imatrix check",
        phase=Phase.EXAMINE,
        does="look for holes in the importance matrix",
        work=Call(function="qa.preflight:imatrix", inputs={"imatrix": FileOf(stage="imatrix"), "gguf": GGUF}, threaded=False),
        cost=costs.imatrix_check,
        measures=("imatrix.failures", "imatrix.unreached", "imatrix.unused"),
    )


def _own_text(recipe: Recipe) -> Iterator[Stage]:
    """What the model writes, where a recipe lets it."""
    if _written(recipe):
        tokens = {"calibration": recipe.calibration.generated, "evaluation": recipe.evaluation.divergence.generated}
        yield Stage(
            name=functions.GENERATED,
            phase=Phase.EXAMINE,
            does="let the model write text to calibrate and measure on",
            work=functions.generated(MODEL, GGUF, **tokens),
            after=("templates",),  # what is wrong with conversion or template is told there, and not by the text that comes of it
            unit="tokens",
            cost=costs.generated,
            measures=("generated.failures", "generated.dropped"),
        )


def _written(recipe: Recipe) -> tuple[str, ...]:
    return functions.written(recipe.calibration, recipe.evaluation.divergence)


def _float16(recipe: Recipe) -> bool:
    return any(gate.measure in gates.ON_REQUEST for gate in recipe.gates)


def _upstream(work: Work) -> Upstream:
    upstream = taking.resolved(work.job, work.route, work.release.repo, work.release.sha)
    if (refusal := terms.refusal(upstream)) is not None:
        raise UpstreamError(refusal)
    return upstream


def _snapshot(work: Work) -> Output:
    return taking.taken(work.job, work.route, work.of("upstream", Upstream))


def _fix(work: Work) -> Output:
    """What is derived is done at once where the recipe says so."""
    wanted = work.recipe.fixes
    approved = None if wanted == "auto" else work.job.approved
    prompt = work.recipe.system_prompt
    call = functions.fix(Whole(stage="snapshot"), repo=OfRelease(name="repo"), fixes=bool(wanted), system_prompt=prompt, approved=approved)
    return work.call("fix", call)


def _approval(work: Work) -> None:
    """Raises Held."""
    fixed = _HOLDS.validate_python(work.output("fix").result["held"])
    paths, upstream = [file.path for file in work.output("snapshot").files], work.of("upstream", Upstream)
    found = [
        *fixed,
        *terms.unlicensed(upstream, paths, strange=work.strange),
        *terms.lost(upstream, strange=work.strange),
        *vectors.ranks(upstream.pipeline_tag, upstream.release.repo),
        *rollback.held(work.job.store, work.job.run, work.recipe.on_rollback),
    ]
    if undecided := work.job.hold(found):
        raise Held(undecided)


def patches(work: Work) -> list[Patch]:
    """The changes that fixes made."""
    return _PATCHES.validate_python(work.output("fix").result["patches"])
