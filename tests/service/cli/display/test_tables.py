import io
from dataclasses import dataclass
from datetime import UTC, datetime

from rich.console import Console

from config.words import Release
from service.cli.display import runs_table, show_run
from service.cli.display.tables import blocked

SUMMARY = {
    "run": 7,
    "release": {"repo": "upstream/tiny", "sha": "a" * 40},
    "state": "done",
    "error": None,
    "disk_high_water": 42_000_000,
    "patches": [
        {"fix": "single-bos", "file": "tokenizer_config.json", "reason": "one is enough"},
        {"fix": "single-bos", "file": "chat_template.jinja", "reason": "one is enough"},
    ],
    "variants": [
        {
            "tag": "Q4_K_M",
            "file": "tiny-Q4_K_M.gguf",
            "bytes": 2_375_072,
            "bpw": 5.17,
            "kld": {"mean": 0.00494, "stderr": 0.00067, "p999": 0.502, "max": 0.9},
            "same_top": 0.975,
            "mmlu": {"accuracy": 1.0, "stderr": 0.0012, "n": 800},
            "flips": 3,
            "efficiency": 31577.99,
            "verdict": "passed",
            "reasons": [],
        },
        {
            "tag": "[red]x",
            "file": None,
            "bytes": None,
            "bpw": None,
            "kld": {"mean": None, "stderr": None, "p999": None, "max": None},
            "same_top": None,
            "mmlu": {"accuracy": None, "stderr": None, "n": None},
            "flips": None,
            "efficiency": None,
            "verdict": "failed",
            "reasons": ["kld.mean is [bold]0.43[/], at most 0.15 is allowed.", "Another reason."],
        },
    ],
    "publications": [{"repo": "acme/tiny-GGUF", "revision": "b" * 40, "url": "http://hub/acme/tiny-GGUF", "files": ["README.md"]}],
}


def shown(width: int) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    show_run(console, SUMMARY)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_a_run_is_shown_with_figures_reasons_and_repos() -> None:
    text = shown(200)
    for part in (
        "Q4_K_M",
        "2.38 MB",
        "0.00494",
        "± 0.00067",
        "97.50%",
        "100.00%",
        "31,578",
        "passed",
        "blocked",
        "Another reason.",
        "42.00 MB",
        "one is enough",
    ):
        assert part in text
    assert "acme/tiny-GGUF, 1 file at bbbbbbbbbbbb: http://hub/acme/tiny-GGUF" in text
    assert text.count("one is enough") == 1, "one row for each fix, not for each file"


PLANNED = {
    **SUMMARY["variants"][0],  # type: ignore[index, dict-item]
    "tag": "UD-Q4_K_XL",
    "plan": {
        "predicted": 0.00158, "predicted_stderr": 0.00007, "measured": 0.00494, "factor": 3.1265, "stock": 0.00988, "replaced": False, "remarks": ["[b]off[/]"],
    },
}  # fmt: skip


def test_a_plan_is_shown_beside_its_measurement() -> None:
    console = Console(file=io.StringIO(), width=84, highlight=False)
    show_run(console, {**SUMMARY, "variants": [PLANNED]})
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "…" not in text
    assert "look twice UD-Q4_K_XL: [b]off[/]" in text
    (row,) = [line.split() for line in text.partition("Planned mixes")[2].splitlines() if "UD-Q4_K_XL" in line and "0.00158" in line]
    assert row == ["UD-Q4_K_XL", "0.00158", "0.00494", "3.13", "0.00988", "50%"]
    rows = [line for line in text.partition("Planned mixes")[0].splitlines() if line.strip().startswith("UD-Q4_K_XL")]
    assert "2.38 MB" in rows[0], "the whole row fits into 84 columns"
    assert rows[0].rstrip().endswith("passed")


def test_without_plans_there_is_no_table_of_them() -> None:
    assert "Planned mixes" not in shown(200)


def test_a_narrow_terminal_cuts_no_figure() -> None:
    text = shown(80)
    assert "…" not in text
    assert "± 0.00067" in text
    assert "blocked [red]x: kld.mean is [bold]0.43[/], at most 0.15 is allowed. Another reason." in " ".join(text.split())


LONG = "Qwen3-30B-A3B-Instruct-2507-UD-Q4_K_XL"


def test_a_long_name_is_whole_at_80_columns() -> None:
    rows = [{**row, "tag": LONG} for row in (SUMMARY["variants"][0], PLANNED)]  # type: ignore[index]
    console = Console(file=io.StringIO(), width=80, highlight=False)
    show_run(console, {**SUMMARY, "variants": rows})
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert text.count(LONG) == 4, "in both tables and in what is to be looked at twice"
    lines = text.splitlines()
    assert max(len(line) for line in lines if not line.startswith("published")) <= 80
    below = lines[lines.index(f" {LONG}") + 1]
    assert below.split()[:3] == ["2.38", "MB", "5.17"]


def test_a_reason_that_variants_share_is_said_once() -> None:
    shared, own = "template.failures is 1.", "kld.mean is 0.43."
    failed = [{**SUMMARY["variants"][1], "tag": tag, "reasons": [shared]} for tag in ("Q4_0", "Q2_K")]  # type: ignore[index]
    rows = [*failed, {**failed[0], "tag": "IQ1_S", "reasons": [shared, own]}]
    assert blocked(rows) == [("all 3 variants", shared), ("IQ1_S", own)]
    assert blocked([*rows, SUMMARY["variants"][0]]) == [("Q4_0, Q2_K, IQ1_S", shared), ("IQ1_S", own)]  # type: ignore[index]


@dataclass(frozen=True, kw_only=True)
class Run:
    """As much of a run as the list shows."""

    run: int
    release: Release
    recipe: str = "/somewhere/else/recipe.yaml"
    state: str = "interrupted"
    trigger: str = "webhook"
    created: datetime = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)


def test_the_list_of_runs_fits_with_long_names() -> None:
    runs = [Run(run=1234, release=Release(repo="Qwen/Qwen3-30B-A3B-Instruct-2507", sha="a" * 40)), Run(run=7, release=Release(repo="a/b", sha="b" * 40))]
    console = Console(file=io.StringIO(), width=80, highlight=False)
    console.print(runs_table(runs))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "1234 Qwen/Qwen3-30B-A3B-Instruct-2507@aaaaaaaaaaaa" in text
    assert "recipe.yaml interrupted webhook 2026-01-02 03:04" in text
    assert max(map(len, text.splitlines())) <= 80


def test_markup_of_strangers_is_text() -> None:
    assert "[red]x" in shown(200)
    assert "[bold]0.43[/]" in shown(200)


def test_no_line_is_wider_than_the_terminal() -> None:
    for width in (80, 100, 139, 200):
        lines = [line for line in shown(width).splitlines() if not line.startswith("published")]
        assert max(map(len, lines)) <= width


def standing(state: str, stage: dict[str, object]) -> list[str]:
    console = Console(file=io.StringIO(), width=60, highlight=False)
    bare = {**SUMMARY, "variants": [], "patches": [], "publications": [], "disk_high_water": None}
    show_run(console, {**bare, "state": state, "stages": [{"name": "fix", "state": "done", "seconds": 1.0, "estimate": None, "progress": None}, stage]})
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


PROGRESS = {"done": 12, "total": 40, "unit": "windows", "rate": 3.2, "left": 8.75}


def test_a_running_run_is_shown_with_the_stage_at_work() -> None:
    at_work = {"name": "measure [Q4_0]", "state": "running", "seconds": 63.2, "estimate": 90.0, "progress": PROGRESS}
    assert standing("running", at_work) == ["at work: measure [Q4_0], 12 of 40 windows, 3.2/s, 9 s left", "run 7: running"]
    assert standing("running", {**at_work, "progress": None})[0] == "at work: measure [Q4_0], 1 min 3 s of about 1 min 30 s"


def test_an_interrupted_run_is_shown_with_how_to_go_on() -> None:
    left = {"name": "measure", "state": "interrupted", "seconds": 63.2, "estimate": None, "progress": {**PROGRESS, "rate": None, "left": None}}
    how = "Start the same command again and it goes on where it was; a running service takes it up by itself."
    assert standing("interrupted", left) == [f"interrupted at measure, 12 of 40 windows. {how}", "run 7: interrupted"]
    assert standing("interrupted", {**left, "progress": None, "seconds": None})[0] == f"interrupted at measure. {how}"
    assert standing("interrupted", {**left, "state": "done"})[0] == f"interrupted. {how}"
