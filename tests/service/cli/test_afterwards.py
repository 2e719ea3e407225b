from pathlib import Path
from typing import Any

import pytest

from engines import toolchain
from service.cli.afterwards import commands

FILE = "m-Q4_K_M.gguf"


def summary(**changes: Any) -> dict[str, Any]:
    rows = [{"tag": "IQ1_S", "verdict": "failed", "file": "m-IQ1_S.gguf"}, {"tag": "Q4_K_M", "verdict": "passed", "file": FILE}]
    left = {"repo": "/my out/m-GGUF", "files": [FILE, "README.md"]}
    return {"run": 7, "state": "done", "target": "/my out", "variants": rows, "publications": [left], **changes}


def test_what_was_left_can_be_looked_at_used_and_published() -> None:
    lines = commands(summary(), config=Path("/etc/my sluice.yaml"))
    text = "\n".join(lines)
    assert "sluice --config '/etc/my sluice.yaml' gates 7" in text
    assert "sluice --config '/etc/my sluice.yaml' report 7" in text
    assert "hf upload your-account/m-GGUF '/my out/m-GGUF'" in text
    assert f"{toolchain.tool('llama-cli')} -m '/my out/m-GGUF/{FILE}'" in text


def test_of_what_passed_whole_no_reasons_are_offered_and_of_repos_no_files() -> None:
    passed = summary()["variants"][1:]
    text = "\n".join(commands(summary(variants=passed, target=None, publications=[{"repo": "acme/m-GGUF", "files": [FILE]}]), config=None))
    assert "sluice report 7" in text
    assert "gates" not in text
    assert "llama-cli" not in text
    assert "hf upload" not in text


@pytest.mark.parametrize("changes", [{"state": "failed"}, {"state": "interrupted"}, {"variants": []}])
def test_of_a_run_without_verdicts_nothing_is_said(changes: dict[str, Any]) -> None:
    assert list(commands(summary(**changes), config=None)) == []
