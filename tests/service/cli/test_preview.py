import io

from rich.console import Console

from config.words import Release
from service.cli.preview import show
from service.release.dry_run import Plan, PlannedGate, PlannedStage
from service.release.sizes import PlannedVariant

LONG = "Qwen3-30B-A3B-Instruct-2507"


def stage(name: str, seconds: float, *, reused: bool = False) -> PlannedStage:
    return PlannedStage(name=name, does="", seconds=seconds, memory=10**9, disk=10**9, gpu=False, reused=reused)


PLANNED = Plan(
    release=Release(repo=f"Qwen/{LONG}", sha="a" * 40),
    recipe="default",
    license=None,
    download_bytes=61 * 10**9,
    targets={f"a-publisher-with-a-long-name/{LONG}-GGUF": ("UD-Q4_K_XL",), f"a-publisher-with-a-long-name/{LONG}-dynamic-bnb-4bit": ("dynamic-bnb-4bit",)},
    variants=(PlannedVariant(tag="UD-Q4_K_XL", bytes=17 * 10**9, exact=False), PlannedVariant(tag="dynamic-bnb-4bit", bytes=19 * 10**9, exact=False)),
    stages=(stage("snapshot", 0, reused=True), stage("fix", 0, reused=True), stage("sensitivity", 12_345), stage("plan UD-Q4_K_XL", 0.4)),
    gates=(PlannedGate(name="as good as what is published", measure="kld.mean", condition="at most 1.05 times that of what is published now", variants=2),),
    remarks=("The run needs about 140.2 GiB of memory at its peak.",),
    seconds=12_345,
    memory=10**11,
    memory_total=10**10,
    disk_needed=10**11,
    disk_missing=10**9,
    disk_free=10**10,
)


def test_a_dry_run_with_long_names_fits_into_80_columns_and_breaks_none() -> None:
    console = Console(file=io.StringIO(), width=80, highlight=False)
    show(console, PLANNED)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    tables = [line for line in lines if line.startswith(" ")]
    assert max(map(len, tables)) <= 80
    for repo in PLANNED.targets:
        assert sum(repo in line for line in lines) == 1
    assert [line.split() for line in lines if "reused" in line] == [["2", "that", "are", "reused", "2.00", "GB"]]
    assert any(line.split() == ["sensitivity", "3", "h", "26", "min", "1.00", "GB", "1.00", "GB"] for line in lines)
