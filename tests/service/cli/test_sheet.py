import io

import pytest
from rich.console import Console

from service.cli.context import Paper
from service.cli.sheet import Column, Sheet, figures, names

LONG = "Qwen3-30B-A3B-Instruct-2507-UD-Q4_K_XL"


def shown(sheet: Sheet, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    console.print(sheet)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


def table(*tags: str) -> Sheet:
    sheet = Sheet(columns=[*names("variant"), *figures("size", "KLD\n± error"), *names("verdict")])
    for tag in tags:
        sheet.add(tag, "2.38 MB", "0.00903\n± 0.00120", "[green]passed[/]")
    return sheet


def test_what_fits_is_a_table() -> None:
    assert shown(table("Q4_K_M"), 80) == [
        "",
        "                       KLD",
        " variant    size   ± error verdict",
        " ─────────────────────────────────",
        " Q4_K_M  2.38 MB   0.00903 passed",
        "                 ± 0.00120",
        "",
    ]


def test_a_long_name_has_a_line_of_its_own_and_the_others_stay_in_the_table() -> None:
    lines = shown(table("Q4_K_M", LONG), 44)
    assert f" {LONG}" in lines
    assert lines[lines.index(f" {LONG}") + 1] == "         2.38 MB   0.00903 passed"
    assert " Q4_K_M  2.38 MB   0.00903 passed" in lines


def test_where_no_table_has_room_each_figure_is_named() -> None:
    lines = shown(table("Qwen3-30B-Q4_K_M"), 24)
    assert lines[1:3] == [" Qwen3-30B-Q4_K_M", "   size: 2.38 MB"]
    assert "   KLD ± error: 0.00903" in lines
    assert "   verdict: passed" in lines


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_prose_wraps_between_words(width: int) -> None:
    reason = "The end-of-sequence token must be the one that ends the assistant's turn, or answers run on after it."
    sheet = Sheet(columns=[*names("fix", "file"), Column(heading="reason", prose=True)])
    sheet.add("end-of-turn-eos", "config.json", reason)
    lines = shown(sheet, width)
    assert max(map(len, lines)) <= width
    found = [word for line in lines for word in line.split()]
    assert [word for word in found if word in reason.split()] == reason.split()


def test_two_columns_of_prose_share_the_room() -> None:
    sheet = Sheet(columns=[*names("gate"), Column(heading="condition", prose=True), Column(heading="outcome", prose=True)])
    sheet.add("divergence", "at most 1.05 times that of what is published now", "undecided\nlook 3 of 3, n = 400,000")
    lines = shown(sheet, 60)
    assert max(map(len, lines)) <= 60
    assert " ".join(" ".join(lines).split()).count("undecided") == 1


def test_markup_of_strangers_is_text_where_it_was_escaped() -> None:
    sheet = Sheet(columns=names("a", "b"))
    sheet.add(r"\[red]x", "[green]y[/]")
    assert " [red]x y" in shown(sheet, 40)


def test_a_row_with_too_few_cells_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="a row of 1 cells for 2 columns"):
        Sheet(columns=names("a", "b")).add("x")


def test_columns_stay_under_one_another_where_the_encoding_has_only_ascii() -> None:
    raw = io.BytesIO()
    console = Paper(file=io.TextIOWrapper(raw, encoding="ascii", errors="replace", write_through=True), width=80, highlight=False)
    console.print(table("Q4_K_M"))
    lines = raw.getvalue().decode("ascii").splitlines()
    assert lines[2] == " variant    size   +- error verdict"
    assert lines[4].index("passed") == lines[2].index("verdict")
    assert lines[5].rstrip().endswith("+- 0.00120")
