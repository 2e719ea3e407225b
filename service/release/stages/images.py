"""Of a model that reads images: its projectors (mmproj), which go beside GGUF files, and whether these make of images what the model does."""

from collections.abc import Iterator, Sequence

from pydantic import TypeAdapter

from builders import modalities
from config.recipe import Recipe
from config.words import Measurement, Variant
from qa import gates
from qa import mmproj as seen
from service.execution.kept import Output
from service.release import costs, functions
from service.release.graph import Call, FileOf, OfHub, OfRelease, Phase, Result, Source, Stage
from service.release.products import COMPARED, PROJECTORS, Projected
from service.release.work import Work

_MEASUREMENTS = TypeAdapter(list[Measurement])


def stages(recipe: Recipe) -> Iterator[Stage]:
    """Their files, and what these make of images; of a model that reads text alone nothing is made."""
    if not recipe.variants.projectors():
        return
    yield Stage(
        name=PROJECTORS,
        phase=Phase.BUILD,
        does="make the files (mmproj) by which llama.cpp reads images, if the model does",
        work=_build,
        also=("fix",),
        cost=costs.projectors,
        alone=True,
    )
    yield Stage(
        name=COMPARED,
        phase=Phase.MEASURE,
        does="compare what both engines make of images",
        work=_compare,
        also=(PROJECTORS, "fix", "convert"),
        unit="files",
        cost=costs.compared,
        measures=seen.NAMES,
        alone=True,
    )


def _build(work: Work) -> Output | None:
    if "images" not in modalities.read(functions.configuration(work.output("fix"))):
        return None
    params = {"types": list(work.recipe.variants.mmproj), "name": OfRelease(name="name"), "repo": OfRelease(name="repo"), "hub": OfHub()}
    params |= {"facts": Result(stage="fix", name="facts")}
    return work.call(PROJECTORS, Call(function="builders.mmproj:build", inputs={"model": functions.MODEL}, params=params, threaded=False))


def _compare(work: Work) -> Output | None:
    made = work.maybe(PROJECTORS, Output)
    if made is None or not made.result["files"]:
        return None
    files = [FileOf(stage=PROJECTORS, path=item["file"]) for item in made.result["files"].values()]
    inputs: dict[str, Source | Sequence[Source]] = {"model": functions.MODEL, "gguf": functions.GGUF, "projectors": files}
    return work.call(COMPARED, Call(function="qa.mmproj:compare", inputs=inputs))


def judged(work: Work) -> tuple[Projected, ...]:
    """The projectors with their verdicts; none of a model that reads no images, or of which none could be made."""
    made = work.maybe(PROJECTORS, Output) if PROJECTORS in work.graph and work.failure(PROJECTORS) is None else None
    parts = {part.tag: part for part in work.recipe.variants.projectors()}
    return () if made is None else tuple(_judged(work, made, parts[tag], item) for tag, item in made.result["files"].items())


def _judged(work: Work, made: Output, variant: Variant, item: dict[str, int | str]) -> Projected:
    failure = work.failure(COMPARED)
    found = {} if failure is not None else work.of(COMPARED, Output).result
    error = str(failure) if failure is not None else found["errors"].get(variant.tag)
    measured = {} if error else {one.name: one for one in _MEASUREMENTS.validate_python(found["measured"][variant.tag])}
    wanted = work.recipe.projector_gates
    errors = dict.fromkeys((gate.measure for gate in wanted), error) if error else {}
    verdict = gates.judge(variant, wanted, measured, errors, work.job.waivers)
    file = next(file for file in made.files if file.path == item["file"])
    return Projected(variant=variant, output=made, file=file, parameters=int(item["parameters"]), measured=measured, verdict=verdict)


def lacking(work: Work, made: tuple[Projected, ...]) -> str | None:
    """Why none of these passed, in words; None where one did, or the model reads no images."""
    if any(item.passed for item in made):
        return None
    if PROJECTORS not in work.graph:
        return "the recipe wants none"
    if (failure := work.failure(PROJECTORS)) is not None:
        return str(failure).splitlines()[0]
    built = work.maybe(PROJECTORS, Output)
    return None if built is None else built.result["reason"] or "none passed its gates"
