"""What each reader fetches for a tag: the rules, and the real llama.cpp against the embedded Hub."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, HfApi

from engines import toolchain
from hub import gguf
from publishers import tags

NAMES = ("BF16", "F16", "Q8_0", "Q4_K_M", "UD-Q4_K_XL", "Q4_0")
PROJECTORS = ("mmproj-BF16.gguf", "mmproj-F16.gguf", "mmproj-Q8_0.gguf")


def files(model: str, *names: str) -> dict[str, str]:
    return {name: f"{model}-{name}.gguf" for name in names}


def named(found: dict[str, tags.Fetched]) -> tuple[set[str], dict[str, str | None]]:
    """The variants that llama.cpp has to be given by name, and those that Ollama has, with what it is given."""
    return {tag for tag, way in found.items() if not way.by_tag}, {tag: way.ollama for tag, way in found.items() if way.ollama != tag}


def test_most_tags_are_one_file() -> None:
    assert named(tags.fetched("acme/tiny-GGUF", files("tiny", "BF16", "Q8_0", "Q4_K_M", "UD-Q4_K_XL", "Q4_0", "IQ4_NL"))) == (set(), {})
    assert named(tags.fetched("acme/tiny-GGUF", files("tiny", *NAMES))) == ({"F16"}, {}), "which BF16 ends in"


def test_a_planned_mix_called_like_a_stock_one_is_told_apart() -> None:
    found = named(tags.fetched("acme/tiny-GGUF", files("tiny", "Q4_K_M", "UD-Q4_K_M", "Q4_K_XL", "UD-Q4_K_XL")))
    assert found == ({"Q4_K_M", "Q4_K_XL"}, {}), "the Hub's labels hold UD-"


def test_a_model_whose_name_holds_a_tag() -> None:
    found = named(tags.fetched("acme/tiny-qat-q4_0-unquantized-GGUF", files("tiny-qat-q4_0-unquantized", *NAMES)))
    assert found == ({"Q4_0", "F16"}, {})
    assert named(tags.fetched("acme/tiny-mtp-chat-GGUF", files("tiny-mtp-chat", "Q8_0"))) == ({"Q8_0"}, {"Q8_0": None}), "no model at all by its name"


def test_tags_that_the_hub_does_not_know_are_names_of_files_as_long_as_ollama_takes_them() -> None:
    own = {"Q4_K_L": "tiny-Q4_K_L.gguf", "mine": "tiny-mine.gguf"}
    assert named(tags.fetched("acme/tiny-GGUF", own)) == (set(), own)
    long = "x" * 72
    assert named(tags.fetched(f"acme/{long}-GGUF", files(long, "Q8_0", "mine"))) == (set(), {"mine": None})
    assert named(tags.fetched("ac.me/tiny-GGUF", files("tiny", "Q8_0"))) == (set(), {"Q8_0": None}), "an owner with a dot"


def test_files_in_parts_and_beside_the_model_are_not_mistaken_for_it() -> None:
    split = {"Q8_0": "Q8_0/tiny-Q8_0-00001-of-00002.gguf", "Q4_K_M": "tiny-Q4_K_M.gguf"}
    others = ["Q8_0/tiny-Q8_0-00002-of-00002.gguf", "mmproj-F16.gguf", "imatrix.gguf", "mtp-tiny-Q4_K_M.gguf"]
    assert tags.llama_cpp([*split.values(), *others], "Q8_0") == [split["Q8_0"]]
    assert tags.llama_cpp([*split.values(), *others], "F16") == []
    assert tags.fetched("acme/tiny-GGUF", split, others[:3]) == {tag: tags.Fetched(by_tag=True, ollama=tag) for tag in split}


def test_a_projector_of_a_variant_s_type_is_not_mistaken_for_it_and_llama_cpp_takes_the_nearest() -> None:
    there, beside = files("tiny", *NAMES), ["mmproj-F16.gguf", "mmproj-Q8_0.gguf", "imatrix.gguf"]
    assert tags.hub([*beside, *there.values()], "F16") == [there["F16"]]
    assert tags.fetched("acme/tiny-GGUF", there, beside) == tags.fetched("acme/tiny-GGUF", there)
    assert [tags.projectors(beside, file) for file in there.values()] == [["mmproj-F16.gguf"]] * 2 + [["mmproj-Q8_0.gguf"]] * 4
    alike = [f"mmproj-{type}.gguf" for type in ("BF16", "F16", "Q8_0")]
    assert tags.projectors(alike, "tiny-BF16-00001-of-00002.gguf") == tags.projectors(alike, "tiny-7b-F32.gguf") == alike[:2]
    assert tags.projectors(["tiny-F16.gguf"], "tiny-F16.gguf") == []


def test_the_embedded_hub_goes_by_the_same_labels() -> None:
    names = {*tags._QUANTIZATIONS, *gguf.ORDER, "Q4_K_L", "Q2_K_L", "UD-IQ1_M", "mine", "Q4_0_4_4"}
    paths = [f"tiny-{name}.gguf" for name in sorted(names)] + [f"tiny-q4_0-{name}-00001-of-00002.gguf" for name in sorted(names)]
    assert [tags.label(path) for path in paths] == [gguf.label(path) for path in paths]
    for name in NAMES:
        paths = ["imatrix.gguf", f"mmproj-{name}.gguf", f"tiny-mtp-{name}.gguf", *files("tiny-qat-q4_0", *NAMES).values()]
        assert tags.hub(paths, name) == [gguf.chosen(paths, name)]


CASES = (
    ("tiny", NAMES),
    ("tiny-q4_0-unquantized", ("BF16", "Q4_0")),
    ("tiny-mtp-chat", ("Q8_0",)),
)


@pytest.mark.parametrize(("model", "names"), CASES, ids=[model for model, _ in CASES])
def test_llama_cpp_itself_fetches_what_is_foretold(api: HfApi, endpoint: str, tmp_path: Path, model: str, names: Sequence[str]) -> None:
    """Model and projector; the files hold none, so that it ends as soon as it has fetched them."""
    repo = api.create_repo(f"acme/{model}-GGUF").repo_id
    there = files(model, *names)
    beside = [*PROJECTORS, "imatrix.gguf"]
    api.create_commit(repo, [CommitOperationAdd(path, path.encode()) for path in (*there.values(), *beside)], commit_message="all")
    for tag, way in tags.fetched(repo, there, beside).items():
        possible = tags.llama_cpp(list(there.values()), tag)
        by_tag, seen = _fetched(endpoint, tmp_path / tag / "tag", "-hf", f"{repo}:{tag}")
        assert by_tag == {there[tag]} if way.by_tag else by_tag <= {*possible}
        if not way.by_tag:
            named, seen = _fetched(endpoint, tmp_path / tag / "file", "-hf", repo, "-hff", there[tag])
            assert named == {there[tag]}
        assert seen == set(tags.projectors(beside, there[tag])[:1]), "the embedded Hub lists names in order"


def _fetched(endpoint: str, cache: Path, *arguments: str) -> tuple[set[str], set[str]]:
    """Names of the models that llama.cpp has in its cache afterwards, and of the projectors."""
    cache.mkdir(parents=True)
    place = {"PATH": os.environ["PATH"], "HOME": str(cache), "HF_ENDPOINT": endpoint, "LLAMA_CACHE": str(cache), "HF_HUB_CACHE": str(cache)}
    command = [toolchain.tool("llama-server"), *arguments, "--host", "127.0.0.1", "--port", "0"]
    ended = subprocess.run(command, env=place, capture_output=True, timeout=60, check=False, stdin=subprocess.DEVNULL)
    assert ended.returncode != 0, "these files hold no model"
    found = {path.name for path in cache.rglob("*.gguf")}
    return found - {*PROJECTORS}, found & {*PROJECTORS}
