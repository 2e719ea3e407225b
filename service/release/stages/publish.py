"""What passed, as repos on the Hub."""

from collections.abc import Iterator
from dataclasses import asdict

from config.recipe import Recipe
from publishers import ollama
from service.execution.kept import Output
from service.release import costs, functions
from service.release.consent import ask
from service.release.graph import Phase, Stage
from service.release.measuring.divergence import WINDOWS
from service.release.products import DATA, JUDGED, PARTS
from service.release.promoting import publish
from service.release.publishing import parts
from service.release.work import Work
from service.runs.report import STAGE as REPORT

CONSENT = "consent"


def stages(recipe: Recipe) -> Iterator[Stage]:
    """Renderings for Ollama and the card, then the repos, each in one commit, and their collection."""
    written = functions.written(recipe.calibration, recipe.evaluation.divergence)
    conversations = {name: asdict(probe) for name, probe in ollama.PROBES.items()}
    yield Stage(
        name=functions.CHAT,
        phase=Phase.PUBLISH,
        does="render what tells which of Ollama's templates is the model's",
        work=functions.chat(conversations),
        cost=costs.chat,
    )
    yield Stage(
        name=functions.OLLAMA,
        phase=Phase.PUBLISH,
        does="prove a template for Ollama by Go's own text/template",
        work=_ollama,
        also=(functions.CHAT, "fix"),
        cost=costs.chat,
    )
    yield Stage(
        name=PARTS,
        phase=Phase.PUBLISH,
        does="divide files that are larger than a Hub takes",
        work=parts,
        also=(JUDGED,),
        unit="bytes",
        cost=costs.parts,
    )
    asking = recipe.publish.hold != "never"
    if asking:
        yield Stage(
            name=CONSENT,
            phase=Phase.PUBLISH,
            does="hold what is ready until a person lets it be published",
            work=ask,
            also=(JUDGED, "fix", PARTS),
            after=(functions.OLLAMA, REPORT),
            records=True,
        )
    yield Stage(
        name="publish",
        phase=Phase.PUBLISH,
        does="publish each repo of which a variant passed, in one commit",
        work=publish,
        also=("upstream", "snapshot", DATA, "fix", "convert", "imatrix", WINDOWS, JUDGED, PARTS, REPORT, functions.CHAT, functions.OLLAMA, *written),
        after=(CONSENT,) if asking else (),
        unit="bytes",
        cost=costs.publish,
        records=True,
    )


def _ollama(work: Work) -> Output:
    derived = ollama.template_from_probes(work.output(functions.CHAT).result["renderings"])
    return work.call(functions.OLLAMA, functions.ollama(None if derived is None else derived.decode(), work.output("fix").result["ollama"]))
