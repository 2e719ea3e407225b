"""The result of a run as tables."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

from config.progress import Progress
from service.amounts import duration, how_far, in_order
from service.cli.sheet import Column, Sheet, figures, names
from service.pace import Pace

if TYPE_CHECKING:
    from service.runs.heads import RunHead

Summary = Mapping[str, Any]

LONGEST = 120  # characters of a value of a proposed patch

_VERDICTS = {"passed": "[green]passed[/]", "failed": "[red]blocked[/]", "error": "[red]error[/]", None: "—"}


def result_table(summary: Summary) -> Sheet:
    """The measured variants of a run, one row each."""
    asked = any(row["mmlu"]["accuracy"] is not None for row in summary["variants"])
    headings = ("size", "bits/\nweight", "mean KLD\n± error", "99.9 %\nKLD", "same\ntop", *(("MMLU\n± error", "flips", "points\nper GB") if asked else ()))
    table = Sheet(title=_title(summary), columns=[*names("variant"), *figures(*headings), *names("verdict")])
    for row in summary["variants"]:
        marks = [mark for mark, there in (("(waiver)", row.get("waivers")), ("(quick)", summary.get("quick"))) if there]
        table.add(*_cells(row), *(_answered(row) if asked else ()), "\n".join((_VERDICTS[row["verdict"]], *marks)))
    return table


def _title(summary: Summary) -> str:
    marked = " (quick: small samples, no full measurements)" if summary.get("quick") else ""
    return f"{escape(summary['release']['repo'])} at {summary['release']['sha'][:12]}{marked}"


def blocked(variants: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Why variants were blocked: whom it concerns, and the reasons, each said once however many variants share it."""
    concerned: dict[str, list[str]] = {}
    for row in variants:
        for reason in row["reasons"]:
            concerned.setdefault(reason, []).append(row["tag"])
    together: dict[tuple[str, ...], list[str]] = {}
    for reason, tags in concerned.items():
        together.setdefault(tuple(dict.fromkeys(tags)), []).append(reason)
    everyone = len(variants)
    return [(f"all {everyone} variants" if len(tags) == everyone > 1 else ", ".join(tags), " ".join(reasons)) for tags, reasons in together.items()]


def _cells(row: Mapping[str, Any]) -> list[str]:
    kld = row["kld"]
    return [
        escape(row["tag"]),
        megabytes(row["bytes"]),
        _number(row["bpw"], "{:.2f}"),
        _with_error(kld["mean"], kld["stderr"], "{:.5f}"),
        _number(kld["p999"], "{:.3f}"),
        _number(row["same_top"], "{:.2%}"),
    ]


def _answered(row: Mapping[str, Any]) -> list[str]:
    mmlu = row["mmlu"]
    return [
        _with_error(mmlu["accuracy"], mmlu["stderr"], "{:.2%}"),
        _number(row["flips"], "{:.0f}"),
        _number(row["efficiency"], "{:,.0f}"),
    ]


def plans_table(variants: Sequence[Mapping[str, Any]]) -> Sheet:
    """The planned variants: foretold and measured divergence, and that of the stock mix of the same size or of plain NF4."""
    headings = ("KLD predicted\n± error", "measured", "of what was\nexpected", "stock file\nmeasured", "of the\nstock's")
    table = Sheet(title="Planned mixes", columns=[*names("variant"), *figures(*headings)])
    for row in variants:
        plan = row["plan"]
        ratio = plan["measured"] / plan["stock"] if plan["measured"] is not None and plan["stock"] else None
        table.add(
            escape(row["tag"]),
            _with_error(plan["predicted"], plan["predicted_stderr"], "{:.5f}"),
            _number(plan["measured"], "{:.5f}"),
            _number(plan["factor"], "{:.2f}"),
            _number(plan["stock"], "{:.5f}"),
            _number(ratio, "{:.0%}"),
        )
    return table


def patches_table(patches: Sequence[Mapping[str, Any]]) -> Sheet:
    """The repairs made to the release, each with its reason."""
    table = Sheet(title="Patches", columns=[*names("fix", "file"), Column(heading="reason", prose=True)])
    merged: dict[tuple[str, str], list[str]] = {}
    for patch in patches:
        files = merged.setdefault((patch["fix"], patch["reason"]), [])
        if patch["file"] not in files:
            files.append(patch["file"])
    for (fix, reason), files in merged.items():
        table.add(escape(fix), escape("\n".join(files)), escape(reason))
    return table


def show_run(console: Console, summary: Summary) -> None:
    """Everything that a person wants to know about one run."""
    if summary["variants"]:
        console.print(result_table(summary))
        for who, why in blocked(summary["variants"]):
            console.print(f"[red]blocked[/] [bold]{escape(who)}[/]: {escape(why)}")
    if planned := [row for row in summary["variants"] if row.get("plan")]:
        console.print(plans_table(planned))
        for row in planned:
            for remark in row["plan"]["remarks"]:
                console.print(f"[yellow]look twice[/] [bold]{escape(row['tag'])}[/]: {escape(remark)}")
    if summary["patches"]:
        console.print(patches_table(summary["patches"]))
    for item in summary.get("held", ()):
        _show_hold(console, item)
    for publication in summary["publications"]:
        _show_publication(console, publication, left=bool(summary.get("target")))
    for remark in summary.get("remarks", ()):
        console.print(escape(remark), soft_wrap=True)
    _show_end(console, summary)
    for line in standing(summary):
        console.print(line, markup=False, soft_wrap=True)
    disk = f", disk high-water mark {megabytes(summary['disk_high_water'])}" if summary.get("disk_high_water") else ""
    console.print(f"run {summary['run']}: {summary['state']}{disk}")


def _show_end(console: Console, summary: Summary) -> None:
    """What it takes the place of where it goes back, and why it published nothing."""
    if back := summary.get("rollback"):
        who = f"by {back['by']}" if back["by"] else "the watched revision moved back"
        own = back["sha"] == summary["release"]["sha"]  # which gave way to an older one before
        way = "[yellow]comes back[/]" if own else f"[yellow]goes back[/] from {back['sha'][:12]}"
        console.print(f"{way}, {escape(who)}: {escape(back['comment'])}", soft_wrap=True)
    if summary.get("error"):
        word = {"failed": "[red]failed:[/]", "queued": "[yellow]waits:[/]"}.get(summary["state"], f"[yellow]{summary['state']}:[/]")
        console.print(f"{word} {escape(summary['error'])}{said_of_another_try(summary)}", soft_wrap=True)


def said_of_another_try(summary: Summary) -> str:
    """Whether and when it is tried again, after its error."""
    return f" {escape(summary['again']['said'])}" if summary.get("again") else ""


def _show_publication(console: Console, publication: Mapping[str, Any], *, left: bool) -> None:
    """Where a repo is; `left` in a folder, else on the Hub."""
    count = len(publication["files"])
    files = f"{count} file{'' if count == 1 else 's'}"
    if left:
        console.print(f"[green]left in[/] [bold]{escape(publication['repo'])}[/], {files}", soft_wrap=True)
        return
    where = f"{files} at {publication['revision'][:12]}: {escape(publication['url'])}"
    console.print(f"[green]published[/] [bold]{escape(publication['repo'])}[/], {where}", soft_wrap=True)


def _show_hold(console: Console, item: Mapping[str, Any]) -> None:
    """What was proposed, and who approved it."""
    approval = item["approval"]
    word = "[yellow]held[/]" if approval is None else "[green]approved[/]"
    console.print(f"{word} [bold]{escape(item['subject'])}[/]: {escape(item['reason'])}", soft_wrap=True)
    for patch in item["patches"] if approval is None else ():
        change = f"{_value(patch['before'])} -> {_value(patch['after'])}"
        console.print(f"  {escape(patch['file'])}, {escape(patch['key'])}: {escape(change)}", soft_wrap=True)
    if approval is not None:
        console.print(f"  by {escape(approval['by'])}: {escape(approval['comment'])}", soft_wrap=True)


def _value(value: Any) -> str:
    """A value of a file as JSON, cut where it is long."""
    text = "nothing" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def standing(summary: Summary) -> list[str]:
    """Which stages of a run are at work, or at which it was interrupted and how to go on."""
    stages = summary.get("stages", ())
    lines = [f"at work: {_how_far(stage)}" for stage in stages if stage["state"] == "running"]
    if summary.get("left") is not None:
        lines.append(f"about {duration(summary['left'])} left; {len(summary['coming'])} stages have not begun")
    if summary["state"] == "held":
        run = summary["run"]
        ready = any(item["subject"] == "publishing" and item["approval"] is None for item in summary.get("held", ()))
        done = "Everything is built and measured, and nothing is published" if ready else "Nothing was built or published"
        lines.append(f"It goes on where it was after `sluice approve {run} --by NAME --comment WHY`. {done}.")
    if summary["state"] == "interrupted":
        where = "; ".join(_how_far(stage) for stage in stages if stage["state"] == "interrupted")
        lines.append(
            f"interrupted{' at ' if where else ''}{where}. Start the same command again and it goes on where it was; a running service takes it up by itself."
        )
    return lines


def _how_far(stage: Mapping[str, Any]) -> str:
    found = stage["progress"]
    progress = None if found is None else Progress(done=found["done"], total=found["total"], unit=found["unit"])
    going = Pace() if found is None else Pace(rate=found["rate"], left=found["left"])
    if progress is None and stage["seconds"] is None:
        return str(stage["name"])
    return f"{stage['name']}, {in_order(how_far(progress, going, elapsed=stage['seconds'] or 0.0, estimate=stage['estimate']))}"


def runs_table(runs: "Sequence[RunHead]") -> Sheet:
    """Runs, newest first."""
    digits = max((len(str(run.run)) for run in runs), default=1)
    table = Sheet(columns=names(f"{'run':{max(3, digits)}} release", "recipe", "state", "trigger", "created (UTC)"))
    for run in runs:
        release = f"{run.run:{max(3, digits)}} {run.release.repo}@{run.release.sha[:12]}"
        table.add(escape(release), escape(Path(run.recipe).name), run.state, run.trigger, f"{run.created:%Y-%m-%d %H:%M}")
    return table


def megabytes(count: int | None) -> str:
    """Bytes as MB or GB of 10^6 or 10^9, as the Hub shows them."""
    if count is None:
        return "—"
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.2f} MB"


def _number(value: float | None, form: str) -> str:
    return "—" if value is None else form.format(value)


def _with_error(value: float | None, error: float | None, form: str) -> str:
    return _number(value, form) if error is None else f"{_number(value, form)}\n± {_number(error, form)}"
