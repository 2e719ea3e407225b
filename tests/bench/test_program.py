"""The benches drive the program under settings of their own."""

from pathlib import Path

import pytest

from bench import program


def test_a_run_under_other_settings_than_the_caller_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_API_PORT", "no port")
    assert program.sluice("data", "list", "--json", SLUICE_HOME=str(tmp_path)) == {"recipe": "default", "data": []}


def test_a_failure_names_the_command_and_no_token(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        program.sluice("status", "17", "--json", SLUICE_HOME=str(tmp_path), SLUICE_HUB_TOKEN="hf_secret")
    assert str(caught.value).startswith("`sluice status 17 --json` ended with ")
    assert "hf_secret" not in str(caught.value)
