"""The shape of `service/`: small functions, and modules that say what they are for under names that nobody takes for one another.

Only sources are read, nothing is imported.
"""

import ast
from collections.abc import Iterable, Iterator
from itertools import combinations
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / "service").rglob("*.py"))
FOLDERS = sorted({path.parent for path in MODULES})

ARGUMENTS = 6  # of a function, `self` and `cls` not counted
FUNCTION_LINES = 50  # from `def` to the last line, the docstring included
MODULE_LINES = 400

IRREGULAR = {
    "built": "build",
    "made": "make",
    "kept": "keep",
    "held": "hold",
    "found": "find",
    "sent": "send",
    "written": "write",
    "ran": "run",
    "lent": "lend",
}
SYNONYMS = (
    {"build", "make", "create", "produce", "construct"},
    {"check", "verify", "validate", "inspect", "examine"},
    {"keep", "save", "store", "hold"},
    {"fetch", "get", "download", "retrieve"},
    {"delete", "remove"},
    {"show", "display", "present"},
    {"begin", "start"},
    {"settings", "config", "configuration"},
)
EMPTY = {"util", "utility", "helper", "common", "misc", "shared", "stuff"}  # words that tell nothing about what is in a module
DOUBLED = "bdglmnprt"  # consonants that are written twice before -ing and -ed: planning, skipped


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


# ---- functions and modules --------------------------------------------------------------------------------------------------------------------


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def arguments(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """Names of what a caller gives."""
    taken = function.args
    names = [item.arg for item in (*taken.posonlyargs, *taken.args, *taken.kwonlyargs, taken.vararg, taken.kwarg) if item is not None]
    return [name for position, name in enumerate(names) if position or name not in {"self", "cls"}]


def lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (function.end_lineno or function.lineno) - function.lineno + 1


def crowded(tree: ast.Module) -> list[str]:
    """What is to be said of functions that take too much or are too long."""
    said = []
    for function in functions(tree):
        if (count := len(arguments(function))) > ARGUMENTS:
            said.append(f"line {function.lineno}: {function.name} takes {count} arguments, {ARGUMENTS} at most; those that belong together make a dataclass")
        if (count := lines(function)) > FUNCTION_LINES:
            said.append(
                f"line {function.lineno}: {function.name} has {count} lines, {FUNCTION_LINES} at most; it does several things, each of which has a name"
            )
    return said


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_functions_fit_on_a_screen_and_take_few_arguments(path: Path) -> None:
    assert not (said := crowded(ast.parse(path.read_text(encoding="utf-8")))), "\n".join([named(path), *said])


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_a_module_says_what_it_is_for_and_is_not_long(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(source)), f"{named(path)} opens without a docstring: one sentence that says what it is for"
    count = len(source.splitlines())
    assert count <= MODULE_LINES, f"{named(path)} has {count} lines, {MODULE_LINES} at most: it holds several things, each of which makes a module"


# ---- names ------------------------------------------------------------------------------------------------------------------------------------


def stem(word: str) -> str:
    """The word without the endings by which forms of one word differ: plan of plans, planned and planning, measur of measure and measuring."""
    word = IRREGULAR.get(word, word)
    for ending in ("ing", "ed", "ies", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 3 and not (ending == "s" and word.endswith("ss")):
            word = word.removesuffix(ending) + ("y" if ending == "ies" else "")
            break
    if len(word) > 3 and word[-1] == word[-2] and word[-1] in DOUBLED:
        word = word[:-1]
    return word.removesuffix("e") if len(word) > 3 else word


def stems(name: str) -> list[str]:
    """The stems of a name's words, in one order, synonyms told as one: build_plan and planned_builds are the same."""
    found = (stem(word) for word in name.split("_"))
    synonyms = [{stem(word) for word in same} for same in SYNONYMS]
    return sorted(next((min(same) for same in synonyms if word in same), word) for word in found)


def one_letter_apart(first: str, second: str) -> bool:
    """Whether one letter more, less or changed makes the one of the other."""
    short, long = sorted((first, second), key=len)
    if len(long) - len(short) > 1:
        return False
    same = next((position for position, (one, other) in enumerate(zip(short, long, strict=False)) if one != other), len(short))
    return short[same + (len(short) == len(long)) :] == long[same + 1 :]


def alike(first: str, second: str) -> str | None:
    """Why two names in one folder are taken for one another; None when they are not."""
    if stems(first) == stems(second):
        return "are forms of the same words, or words for the same"
    if one_letter_apart(first, second):
        return "differ in one letter"
    short, long = sorted((first, second), key=len)
    return "begin alike to the end of the shorter" if long.startswith(short) else None


def confusable(names: Iterable[str]) -> list[str]:
    """What is to be said of the names of one folder."""
    names = sorted(names)
    said = [f"`{name}` tells nothing about what is in it" for name in names if {stem(word) for word in EMPTY} & {stem(word) for word in name.split("_")}]
    return said + [f"`{first}` and `{second}` {why}" for first, second in combinations(names, 2) if (why := alike(first, second))]


@pytest.mark.parametrize("folder", FOLDERS, ids=named)
def test_no_two_names_in_a_folder_can_be_mistaken(folder: Path) -> None:
    modules = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    packages = {path.name for path in folder.iterdir() if path in FOLDERS}
    said = confusable(modules | packages)
    assert not said, "\n".join([f"{named(folder)}: name each module by what it alone holds", *said])


# ---- the rules themselves ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("plan", "planning"),
        ("plan", "planned"),
        ("plans", "planning"),
        ("measure", "measuring"),
        ("queue", "queueing"),
        ("report", "reporting"),
        ("lease", "leased"),
        ("built", "made"),
        ("building", "makes"),
        ("kept", "store"),
        ("repository", "repositories"),
        ("dry_run", "run_dry"),
        ("clock", "block"),
        ("lease", "leases"),
        ("run", "run_summary"),
        ("hub", "hubclient"),
    ],
)
def test_names_that_are_taken_for_one_another(first: str, second: str) -> None:
    assert alike(first, second)
    assert alike(second, first)


@pytest.mark.parametrize(
    ("first", "second"),
    [("plan", "run"), ("ledger", "lease"), ("owner", "queue"), ("access", "errors"), ("dry_run", "runs"), ("class", "claims"), ("string", "strict")],
)
def test_names_that_are_not(first: str, second: str) -> None:
    assert alike(first, second) is None


def test_what_is_too_much_is_told_with_its_place() -> None:
    many = ", ".join(f"a{number}" for number in range(ARGUMENTS))
    fine = f"class A:\n    def fits(self, {many}): ...\n"
    wrong = f"{fine}    def takes(self, {many}, *more): ...\nasync def goes_on():\n" + "    pass\n" * FUNCTION_LINES
    assert crowded(ast.parse(fine)) == []
    said = crowded(ast.parse(wrong))
    assert [text.partition(", ")[0] for text in said] == ["line 4: goes_on has 51 lines", "line 3: takes takes 7 arguments"]
    assert confusable(["plan", "common_words", "run"]) == ["`common_words` tells nothing about what is in it"]
