"""The help of every command: usage as people expect it, and an example that the command understands; and completion of what is only loaded when needed."""

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.core import TyperGroup
from typer.testing import CliRunner

from config.wire import LARGEST
from service.cli.deferred import Deferred
from service.cli.main import COMMANDS, app


def loaded() -> Iterator[tuple[str, Any]]:
    """Every command, those of groups included, by the words that call it."""
    for name, (target, summary) in COMMANDS.items():
        command = Deferred(name, target, summary).load()
        if isinstance(command, TyperGroup):
            yield from ((f"{name} {inner}", found) for inner, found in command.commands.items())
        else:
            yield name, command


EVERY = dict(loaded())


def shown(*words: str) -> str:
    done = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "80"})
    assert done.exit_code == 0
    return done.stdout


@pytest.mark.parametrize("words", [*EVERY, "", *(name for name in COMMANDS if name not in EVERY)])
def test_flags_take_nothing_and_arguments_are_in_capitals(words: str) -> None:
    text = shown(*words.split())
    assert "bool" not in text
    assert "{" not in text.partition("Usage:")[2].splitlines()[0]
    assert max(map(len, text.splitlines())) <= 80


def test_usage_names_what_must_and_what_may_be_given() -> None:
    assert "Usage: sluice waive [OPTIONS] RUN GATE VARIANT" in shown("waive")
    assert "Usage: sluice status [OPTIONS] [RUN]" in shown("status")
    assert "Usage: sluice measure kld [OPTIONS] REFERENCE VARIANTS..." in shown("measure", "kld")
    assert "Usage: sluice measure [OPTIONS] COMMAND [ARGS]..." in shown("measure")


@pytest.mark.parametrize("words", EVERY)
def test_every_command_has_an_example_that_it_understands(words: str) -> None:
    command = EVERY[words]
    example = command.help.rpartition("\n\n")[2]
    assert example.startswith("Example: sluice "), command.help
    given = shlex.split(example.removeprefix("Example: sluice "))
    if given[0] == "--config":
        given = given[2:]
    same = [name for name, (target, _) in COMMANDS.items() if target == COMMANDS.get(words, ("",))[0]]  # two names of one command share its example
    assert given[: len(words.split())] in [words.split(), *([name] for name in same)]
    context = command.context_class(command, info_name=words)
    values, rest, _ = command.make_parser(context).parse_args(given[len(words.split()) :])
    assert rest == []
    missing = [param.name for param in command.params if param.required and not values.get(param.name)]
    assert missing == []


def test_a_number_that_nothing_can_have_is_refused() -> None:
    found = [(EVERY[words], param) for words in EVERY for param in EVERY[words].params if param.name in {"run_id", "other", "publication", "entry"}]
    assert len(found) >= 20
    for command, param in found:
        context = command.context_class(command, info_name=command.name)
        assert param.process_value(context, "2147483647") == LARGEST
        for number in ("2147483648", "99999999999999999999", "-1"):
            with pytest.raises(typer.BadParameter, match="nothing has the number"):
                param.process_value(context, number)


def completed(words: str, home: Path) -> list[str]:
    """What a shell is offered for the last of the words."""
    environment = os.environ | {"_SLUICE_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1), "HOME": str(home)}
    program = [sys.executable, "-c", "import sys; from service.cli import main; sys.argv[0] = 'sluice'; main()"]
    done = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("sluice ga", ["gates"]),
        ("sluice measure ", ["kld", "mmlu", "template", "generate"]),
        ("sluice gates 1 --fa", ["--failed"]),
        ("sluice measure kld --te", ["--text"]),
        ("sluice hub serve --ro", ["--root"]),
    ],
)
def test_commands_and_options_are_completed_though_they_are_loaded_when_called(tmp_path: Path, words: str, offered: list[str]) -> None:
    assert completed(words, tmp_path) == offered


@pytest.mark.parametrize(
    ("shell", "place"), [("bash", ".bash_completions/sluice.sh"), ("zsh", ".zfunc/_sluice"), ("fish", ".config/fish/completions/sluice.fish")]
)
def test_completion_is_installed_for_a_shell(tmp_path: Path, shell: str, place: str) -> None:
    """In a home of its own, by the shell that is asked for in the place of the one that runs the test."""
    program = "import sys, shellingham; from service.cli import main; sys.argv[0] = 'sluice'; shellingham.detect_shell = lambda: (sys.argv.pop(), ''); main()"
    command = [sys.executable, "-c", program, "--install-completion", shell]
    done = subprocess.run(command, env=os.environ | {"HOME": str(tmp_path)}, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert f"{shell} completion installed in {tmp_path / place}" in done.stdout
    assert "_SLUICE_COMPLETE" in (tmp_path / place).read_text()
