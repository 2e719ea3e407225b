"""Which figures of a run are results of a benchmark as the Hub keeps them: answers to all questions of a set that calls itself one, and no sample of them."""

from publishers import evaluations
from publishers.card import Card
from publishers.naming import NOBODY
from service.release.report import sources
from service.release.work import Work


def results(work: Work, told: Card) -> list[evaluations.Result]:
    """The accuracies of a repo's variants, smallest first; none where questions were left out, or asked otherwise than the card says, or are no benchmark's."""
    asked = work.recipe.evaluation.mmlu
    source = next((item for item in sources(work) if item["use"] == "evaluation.mmlu" and item.get("task")), None)
    if asked is None or asked.questions_per_subject is not None or source is None or told.quick:
        return []
    address = None if told.hub is None or told.namespace == NOBODY else f"{told.hub}/{told.repo}"
    return [
        evaluations.Result(
            dataset=source["repo"],
            revision=source["commit"],
            task=source["task"],
            file=row.file if row.files == 1 else row.tag,
            accuracy=row.measurements["mmlu.accuracy"],
            asked=f"{told.method.shots}-shot, {told.method.form} prompt",
            source=address,
        )
        for row in sorted(told.rows, key=lambda row: (row.bytes, row.tag))
        if "mmlu.accuracy" in row.measurements and not row.measurements["mmlu.accuracy"].details
    ]
