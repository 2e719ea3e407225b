"""What the bench prints: tables, ratios and goals."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from bench.plan import plot, report
from bench.plan.contest import Outcome


def outcome(
    *,
    model: str = "llama",
    size: str = "Q4_K_M",
    text: str = "held-out",
    stock: float = 0.004,
    planned: float = 0.002,
    rounded: float | None = None,
    **peers: float,
) -> Outcome:
    return Outcome(
        model=model,
        size=size,
        text=text,
        bytes=2_327_040,
        bits=5.07,
        stock=stock,
        planned=planned,
        rounded=planned if rounded is None else rounded,
        rounded_error=0.0001,
        same_top=(0.962, 0.973),
        predicted=0.0016 if text == "held-out" else None,
        peers=peers,
        off={"planned": -0.001, **dict.fromkeys(peers, 0.002)},
    )


CASES = [
    outcome(rounded=0.001, error=0.003, greedy=0.0018, random=0.008),
    outcome(size="Q2_K", stock=0.04, planned=0.01, error=0.02, greedy=0.03, random=0.08),
    outcome(text="other", stock=0.002, planned=0.0019, error=0.004, greedy=0.004, random=0.004),
]


def test_the_table_shows_every_way_at_every_size() -> None:
    printed = io.StringIO()
    report.show(Console(file=printed, width=240), CASES)
    text = printed.getvalue()
    assert "llama, held-out text" in text
    assert "llama, other text" in text
    row = next(line for line in text.splitlines() if "Q4_K_M" in line)
    assert [part.strip() for part in row.strip("│ ").split("│")] == [
        *("Q4_K_M", "2,327,040", "0.00400", "0.00200", "0.00160", "0.00100", "0.000100", "0.00300", "0.00180", "0.00800"),
        *("0.250", "1.111 greedy by probes", "96.2 → 97.3 %"),
    ]


def test_the_summary_holds_means_worst_cases_and_how_far_predictions_were_off() -> None:
    lines = report.summary(CASES)
    assert lines[0].startswith("planned and rounded / stock, geometric mean of 3 cases: 0.390 (goal 0.60)")
    assert lines[1].endswith("0.492")
    assert lines[2] == "worst case: 0.950, llama at Q4_K_M, other text (goal 0.90)"
    assert lines[3] == "planned and rounded / best peer of a case, worst: 0.556, greedy by probes, llama at Q4_K_M, held-out text (goal 1.05)"
    assert lines[4] == "planned and rounded: worse than the best peer by more than 5 % in 0 of 3 cases"
    assert lines[5] == "planned / best peer of a case, worst: 1.111, greedy by probes, llama at Q4_K_M, held-out text (goal 1.05)"
    assert lines[6] == "planned: worse than the best peer by more than 5 % in 1 of 3 cases"
    assert any(line.startswith("planned / random, geometric mean of 3 cases: 0.246") for line in lines)
    assert "measured / predicted, geometric mean of 2 cases: 2.795" in "\n".join(lines)
    assert lines[-1].startswith("largest difference of a file's bytes from the stock file's: 0.20 %")


def test_markdown_has_one_row_for_each_model_and_text_and_one_for_each_size() -> None:
    text = report.markdown([*CASES, outcome(model="gemma3")], detailed="llama")
    lines = text.splitlines()
    assert lines[0].startswith("| model, text | planned and rounded / stock | worst | planned / stock | planned / relative weighted error |")
    assert lines[2] == "| llama, held-out | **0.25** | 0.25 | 0.35 | 0.58 | 0.61 | 0.18 |"
    assert lines[4] == "| gemma3, held-out | **0.50** | 0.50 | 0.50 |  |  |  |"
    assert lines[5].startswith("| all | **0.42** | 0.95 | 0.49 |")
    assert "| Q2_K | 2,327,040 | 0.0400 | 0.00160 | 0.0100 | 0.0100 | **0.25** | 0.0200 | 0.0300 | 0.0800 |" in lines
    assert all(line.count("|") == lines[0].count("|") for line in lines[:6])


def test_the_plot_is_the_same_bytes_again(tmp_path: Path) -> None:
    for name in ("one.svg", "two.svg"):
        plot.draw(CASES, tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()


@pytest.mark.parametrize(("value", "shown"), [(0.123456, "0.123"), (0.0123456, "0.0123"), (0.000123456, "0.000123"), (0.0, "0.00000"), (1.5, "1.500")])
def test_three_figures_are_shown(value: float, shown: str) -> None:
    assert report._nats(value) == shown
