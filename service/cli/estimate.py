"""`sluice plan --estimate`: what a planned file of a model would take, here and on machines that are not at hand."""

from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.markup import escape

from service.amounts import byte_count, duration
from service.cli.sheet import Column, Sheet, figures, names
from service.release.estimate import Estimate, Estimated


def document(found: Estimated) -> dict[str, Any]:
    """As JSON."""
    return {
        "model": found.name,
        "parameters": found.parameters,
        "active": round(found.active),
        "machines": [
            {
                "name": one.machine,
                "windows": one.windows,
                "groups": one.groups,
                "passes": None if one.windows is None else one.windows * one.groups,
                "streamed": one.streamed,
                "seconds": one.seconds,
                "memory": one.memory,
                "memory_there": one.there,
                "disk": one.disk,
                "stages": [{"name": name, **asdict(needs)} for name, needs in one.stages.items()],
            }
            for one in found.machines
        ],
    }


def show(console: Console, found: Estimated) -> None:
    """One row for each machine."""
    active = "" if found.active > 0.75 * found.parameters else f", of which a token meets {found.active / 1e9:.3g}"
    console.print(f"[bold]{escape(found.name)}[/], {found.parameters / 1e9:.3g} billion parameters{active}", soft_wrap=True)
    columns = [*names("machine"), *figures("passes", "gradients", "rounding", "all", "memory", "disk"), Column(heading="remark", prose=True)]
    table = Sheet(columns=columns)
    for one in found.machines:
        passes = "" if one.windows is None else f"{one.windows * one.groups:,}"
        needs = (byte_count(one.memory), byte_count(one.disk))
        table.add(one.machine, passes, _time(one, "sensitivity"), _time(one, "round"), duration(one.seconds), *needs, _remark(one))
    console.print(table)
    console.print("one planned file from the download on; `passes`: windows read forward and backward. Only this machine's rates are measured", soft_wrap=True)


def _time(one: Estimate, stage: str) -> str:
    return duration(sum(needs.seconds for name, needs in one.stages.items() if name.split()[0] == stage))


def _remark(one: Estimate) -> str:
    said = []
    if one.there is not None and one.memory > one.there:
        said.append(f"more memory than the {byte_count(one.there)} there")
    if one.windows is None:
        said.append("memory too small for gradients: probes, no rounding")
    elif one.streamed:
        said.append("layers streamed")
    if one.groups > 1:
        said.append(f"in {one.groups} groups")
    return ", ".join(said)
