"""A blocked variant is looked at, waived by name, published with the waiver on its card, and blocked again when the waiver is withdrawn."""

import json
from pathlib import Path

import pytest

from tests.acceptance.conftest import NAMESPACE, RECIPE, UPSTREAM, Hub, Made, sluice

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

GGUF = f"{NAMESPACE}/tiny-chat-GGUF"
SAID = ("--by", "Ada Lovelace", "--comment", "Small enough for the *museum*'s machine.")


def test_a_waived_variant_is_published_and_its_card_says_who_and_why(hub: Hub, made: Made, tmp_path: Path) -> None:
    settings = hub.environment(made(tmp_path / "home"))
    first = sluice("run", UPSTREAM, "--recipe", RECIPE, "--json", **settings)
    assert first.returncode == 3, first.stderr
    number = str(json.loads(first.stdout)["run"])

    told = sluice("gates", number, "--json", **settings)
    assert told.returncode == 3, told.stderr
    sane, hopeless = json.loads(told.stdout)["variants"]
    assert sane["verdict"] == "passed"
    assert {gate["outcome"] for gate in sane["gates"]} == {"passed"}
    (knowledge,) = (gate for gate in sane["gates"] if gate["gate"] == "mmlu")
    assert knowledge["look"] > 1, "ten questions of each subject do not decide it"
    assert knowledge["n"] == 80 * 2 ** (knowledge["look"] - 1)
    (blocking,) = (gate for gate in hopeless["gates"] if gate["outcome"] == "failed")
    assert (blocking["gate"], blocking["limit"], blocking["unit"]) == ("divergence", 0.15, "nats")
    assert blocking["value"] - 1.645 * blocking["stderr"] > 0.15
    assert blocking["reason"] in sluice("gates", number, **settings).stdout.replace("\n", " ")

    refused = sluice("waive", number, "file", "IQ1_S", *SAID, **settings)
    assert refused.returncode == 1
    assert "nothing to waive" in refused.stderr
    waived = sluice("waive", number, "divergence", "IQ1_S", *SAID, **settings)
    assert waived.returncode == 0, waived.stderr
    assert "sluice run upstream/tiny-chat --revision" in waived.stdout
    assert not hub.publisher.file_exists(GGUF, "tiny-chat-IQ1_S.gguf"), "a waiver publishes nothing by itself"

    again = sluice("run", UPSTREAM, "--recipe", RECIPE, "--json", **settings)
    assert again.returncode == 0, again.stderr
    summary = json.loads(again.stdout)
    assert summary["variants"][1]["waivers"] == [{"gate": "divergence", "by": SAID[1], "comment": SAID[3]}]
    done = {stage["name"] for stage in summary["stages"] if stage["state"] != "reused"}
    before = {"answer Q4_K_M", "read back Q4_K_M"}  # the smallest file of the first time
    assert done - before == {"report", "answer IQ1_S", "read back IQ1_S", f"upload {GGUF}", f"publish {GGUF}"}, "nothing is built or measured anew"
    assert hub.publisher.file_exists(GGUF, "tiny-chat-IQ1_S.gguf")
    downloaded = {
        name: Path(hub.publisher.hf_hub_download(GGUF, name, local_dir=tmp_path / "got")).read_text() for name in ("README.md", "sluice-manifest.json")
    }
    assert "## Waivers" in downloaded["README.md"]
    assert f"80 questions in the hendrycks form, 5 shots, and up to {knowledge['n']} where these left a gate undecided" in downloaded["README.md"]
    assert "waived by Ada Lovelace: Small enough for the &#42;museum&#42;'s machine." in downloaded["README.md"]
    entries = {entry["tag"]: entry["waivers"] for entry in json.loads(downloaded["sluice-manifest.json"])["variants"]}
    assert entries == {"Q4_K_M": [], "IQ1_S": [{"gate": "divergence", "by": SAID[1], "comment": SAID[3]}]}
    assert sluice("gates", number, **settings).returncode == 0

    withdrawn = sluice("waive", number, "divergence", "IQ1_S", "--withdraw", "--by", "Ada Lovelace", "--comment", "The museum closed.", **settings)
    assert withdrawn.returncode == 0, withdrawn.stderr
    assert sluice("run", UPSTREAM, "--recipe", RECIPE, **settings).returncode == 3
    assert not hub.publisher.file_exists(GGUF, "tiny-chat-IQ1_S.gguf")
    assert hub.publisher.file_exists(GGUF, "tiny-chat-Q4_K_M.gguf")
