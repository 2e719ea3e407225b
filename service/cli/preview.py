"""A dry run's plan, as a person reads it."""

from rich.console import Console
from rich.markup import escape

from publishers.naming import NOBODY
from service.amounts import byte_count, duration
from service.cli.sheet import Column, Sheet, figures, names
from service.release.dry_run import Plan, PlannedStage
from service.release.forecast import Forecast
from service.release.prospect import Prospect

TOLD = 8  # variants that are named before a run
LONG = 1.0  # seconds: shorter stages are told together


def show(console: Console, planned: Plan) -> None:
    """Where it will be published, what, by which stages, under which gates, and what all that needs."""
    licence = escape(planned.license or "not stated")
    whence = "local folder, sha256" if planned.release.local else "at"
    console.print(
        f"[bold]{escape(planned.release.repo)}[/] {whence} {planned.release.sha[:12]}, licence {licence}, recipe {escape(planned.recipe)}", soft_wrap=True
    )
    console.print(variants_table(planned))
    console.print(stages_table(planned))
    console.print(gates_table(planned))
    for remark in planned.remarks:
        console.print(f"[yellow]look twice[/] {escape(remark)}", soft_wrap=True)
    enough = "" if planned.disk_missing == 0 else " [red]not enough[/]"
    much = "" if planned.memory <= planned.memory_total else " [red]not enough[/]"
    console.print(
        f"about [bold]{duration(planned.seconds)}[/]; memory {byte_count(planned.memory)} of {byte_count(planned.memory_total)}{much}; "
        f"disk {byte_count(planned.disk_needed)}, {byte_count(planned.disk_free)} free{enough}; download {byte_count(planned.download_bytes)}",
        soft_wrap=True,
    )


def outset(console: Console, ahead: Prospect, expected: Forecast) -> None:
    """What is about to be done, in a few lines: the release, where it goes, how many variants, what it takes."""
    release, recipe = ahead.upstream.release, ahead.recipe
    whence = f"local folder, sha256 {release.sha[:12]}" if release.local else f"at {release.sha[:12]}"
    listed = recipe.variants.listed()
    tags = ", ".join(variant.tag for variant in listed[:TOLD]) + (", …" if len(listed) > TOLD else "")
    repos = [ahead.route.place(repo) for repo in ahead.targets]
    private = " (private)" if ahead.target is None and (ahead.settings.private or ahead.upstream.private) else ""
    where = f"{'published in' if ahead.target is None else 'left in'} {', '.join(repos)}{private}"
    console.print(
        f"[bold]{escape(release.repo)}[/] {whence}, licence {escape(ahead.upstream.license or 'not stated')}, recipe {escape(recipe.label)}", soft_wrap=True
    )
    console.print(f"what passes is {escape(where)}", soft_wrap=True)
    if ahead.namespace == NOBODY:
        console.print(f"cards speak of {NOBODY}/…; --namespace says whose account they are for", soft_wrap=True)
    console.print(f"{len(listed)} variant{'' if len(listed) == 1 else 's'}: {escape(tags)}", soft_wrap=True)
    console.print(
        f"about [bold]{duration(expected.seconds)}[/], {byte_count(expected.more_disk)} of disk, {byte_count(expected.memory)} of memory at most",
        soft_wrap=True,
    )


def variants_table(planned: Plan) -> Sheet:
    """Each variant with its size and the repo that it goes to."""
    table = Sheet(columns=[*names("variant"), *figures("size"), *names("published in")])
    repo = {tag: target for target, tags in planned.targets.items() for tag in tags}
    for variant in planned.variants:
        size = f"{'' if variant.exact else 'about '}{byte_count(variant.bytes)}"
        table.add(escape(variant.tag), size, escape(repo.get(variant.tag, "—")))
    return table


def stages_table(planned: Plan) -> Sheet:
    """Each stage that takes time, in order, and the rest in a row for those that are short and one for those that are reused."""
    table = Sheet(columns=[*names("stage"), *figures("time", "memory", "disk")])
    reused = [stage for stage in planned.stages if stage.reused]
    short = [stage for stage in planned.stages if not stage.reused and stage.seconds < LONG]
    for stage in planned.stages:
        if not stage.reused and stage.seconds >= LONG:
            table.add(escape(stage.name), duration(stage.seconds), *_needs(stage))
    if short:
        table.add(f"{len(short)} short ones", duration(sum(stage.seconds for stage in short)), "", "")
    if reused:
        table.add(f"{len(reused)} that are reused", "", "", byte_count(sum(stage.disk for stage in reused)))
    return table


def _needs(stage: PlannedStage) -> tuple[str, str]:
    return (byte_count(stage.memory) if stage.memory else "", byte_count(stage.disk) if stage.disk else "")


def gates_table(planned: Plan) -> Sheet:
    """Each gate with its bound."""
    table = Sheet(columns=[*names("gate"), Column(heading="", prose=True), *figures("variants")])
    for gate in planned.gates:
        table.add(escape(gate.name), f"{escape(gate.measure)} {escape(gate.condition)}", str(gate.variants))
    return table
