"""What stands for a tag by the Hub's rules is what its own package and node-llama-cpp make of it, not what we believe they do."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, HfApi

from engines.environments import HUGGINGFACE_GGUF, NODE_LLAMA_CPP, Environment
from hub import gguf
from hub.server import running
from hub.tokens import create_token
from publishers import tags

LABELS = """
import {parseGGUFQuantLabel} from "@MODULES@/@huggingface/gguf/dist/index.mjs";
console.log(JSON.stringify(JSON.parse(process.argv[1]).map((name) => parseGGUFQuantLabel(name) ?? null)));
"""
FETCHING = """
import {readFileSync} from "node:fs";
import {resolveModelFile} from "@MODULES@/node-llama-cpp/dist/index.js";
const found = {};
for (const tag of JSON.parse(process.argv[1])) {
    const file = await resolveModelFile(`hf:${process.argv[2]}:${tag}`, {directory: `${process.argv[3]}/${tag}`, cli: false});
    found[tag] = readFileSync(file, "utf-8");
}
console.log(JSON.stringify(found));
process.exit(0);
"""
ENDS = (*tags._QUANTIZATIONS, *gguf.ORDER, "Q4_K_L", "Q2_K_L", "Q6_K_L", "UD-IQ1_M", "UD-Q4_K_XL", "UD-Q2_K_XL", "mine", "Q4_0_4_4", "imat-Q5_K_M")
NAMES = ("BF16", "F16", "Q8_0", "Q4_K_M", "UD-Q4_K_XL", "Q4_0", "Q4_K_L")
BESIDE = ("imatrix.gguf", "mmproj-F16.gguf", "mmproj-Q8_0.gguf")
MODELS = ("tiny", "tiny-qat-q4_0-unquantized")


def asked(environment: Environment, script: str, *arguments: str, **variables: str) -> str:
    if why := environment.missing():
        pytest.skip(why)
    program = script.replace("@MODULES@", str(environment.folder / "node_modules"))
    place = {"PATH": "/usr/local/bin:/usr/bin:/bin", **variables}
    command = ["node", "--input-type=module", "--eval", program, *arguments]
    done = subprocess.run(command, env=place, capture_output=True, text=True, timeout=300, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip().splitlines()[-1]


def test_labels_are_those_of_the_hub_s_own_package() -> None:
    paths = [
        form.format(name) for name in dict.fromkeys(ENDS) for form in ("tiny-{}.gguf", "{0}/tiny-q4_0-{0}-00001-of-00002.gguf", "tiny.{}.gguf", "{}-F16.gguf")
    ]
    found = json.loads(asked(HUGGINGFACE_GGUF, LABELS, json.dumps(paths)))
    assert {path: (tags.label(path), gguf.label(path)) for path in paths} == {path: (label, label) for path, label in zip(paths, found, strict=True)}


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_node_llama_cpp_fetches_what_is_foretold(model: str, tmp_path: Path) -> None:
    """Each file holds its own name; projectors of the same types lie beside them."""
    there = {name: f"{model}-{name}.gguf" for name in NAMES}
    with running(tmp_path / "hub") as url:
        repo = _published(HfApi(endpoint=url, token=create_token(tmp_path / "hub", user="acme")), f"acme/{model}-GGUF", [*there.values(), *BESIDE])
        ways = {name: way.ollama for name, way in tags.fetched(repo, there, BESIDE).items()}
        assert (ways["F16"], ways["Q8_0"], ways["Q4_K_L"]) == ("F16", "Q8_0", there["Q4_K_L"]), "of which the Hub has no label"
        given = [tag for tag in ways.values() if tag is not None]
        found = json.loads(asked(NODE_LLAMA_CPP, FETCHING, json.dumps(given), repo, str(tmp_path / "got"), HF_ENDPOINT=url, HOME=str(tmp_path)))
    assert found == {ways[name]: there[name] for name in NAMES}


def _published(api: HfApi, repo: str, paths: Sequence[str]) -> str:
    api.create_repo(repo)
    api.create_commit(repo, [CommitOperationAdd(path, path.encode()) for path in paths], commit_message="all")
    return repo
