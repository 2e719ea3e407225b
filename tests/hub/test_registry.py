"""Models as Ollama and node-llama-cpp ask for them: manifests by tag, and layers by digest."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import pytest
from huggingface_hub import CommitOperationAdd, HfApi

from hub import gguf
from tests.hub.support import Place

FILES = {
    "README.md": b"---\nlicense: mit\n---\n# Hello\n",
    "params": b'{"stop": ["<|im_end|>"]}\n',
    "system": b"You are tiny.\n",
    "template": b"{{ range .Messages }}{{ .Content }}{{ end }}",
    "imatrix.gguf": b"GGUF imatrix",
    "mmproj-F16.gguf": b"GGUF projector",
    "tiny-chat-BF16.gguf": b"GGUF bf16",
    "tiny-chat-F16.gguf": b"GGUF f16",
    "tiny-chat-Q4_K_L.gguf": b"GGUF l",
    "tiny-chat-UD-Q4_K_XL.gguf": b"GGUF xl",
    "Q8_0/tiny-chat-Q8_0-00001-of-00002.gguf": b"GGUF one",
    "Q8_0/tiny-chat-Q8_0-00002-of-00002.gguf": b"GGUF two",
}
OLLAMA: Mapping[str, str] = {"User-Agent": "ollama/0.20.0 (amd64 linux) Go/go1.24", "Accept": "application/vnd.docker.distribution.manifest.v2+json"}
LLAMA_CPP: Mapping[str, str] = {"User-Agent": "llama-cpp"}


@pytest.fixture
def repo(ann: HfApi) -> str:
    repo = ann.create_repo("ann/tiny-chat-GGUF").repo_id
    ann.create_commit(repo, [CommitOperationAdd(path, content) for path, content in FILES.items()], commit_message="all")
    return repo


def digest(path: str) -> str:
    return f"sha256:{hashlib.sha256(FILES[path]).hexdigest()}"


def asked(place: Place, repo: str, tag: str, headers: Mapping[str, str]) -> tuple[int, dict[str, Any]]:
    status, _, body = place.raw("GET", f"/v2/{repo}/manifests/{tag}", headers=headers)
    return status, json.loads(body)


TAGS = {
    "F16": "tiny-chat-F16.gguf",
    "bf16": "tiny-chat-BF16.gguf",
    "UD-Q4_K_XL": "tiny-chat-UD-Q4_K_XL.gguf",
    "latest": "tiny-chat-UD-Q4_K_XL.gguf",
    "tiny-chat-Q4_K_L.gguf": "tiny-chat-Q4_K_L.gguf",
    "Q8_0": "Q8_0/tiny-chat-Q8_0-00001-of-00002.gguf",
}
REFUSED = {
    "Q4_K_L": "not a valid quantization scheme",
    "Q5_K_M": "not available in the repository",
    "Q8_0": "sharded",
    "tiny-chat-Q8_0-00002-of-00002.gguf": "not a valid quantization scheme",
    "imatrix.gguf": "not a valid quantization scheme",
}


def test_a_tag_is_a_file_for_who_comes_as_llama_cpp_and_ollama_is_told_what_it_cannot_have(place: Place, repo: str) -> None:
    for tag, file in TAGS.items():
        status, found = asked(place, repo, tag, LLAMA_CPP)
        assert status == 200
        assert (found["ggufFile"]["rfilename"], found["ggufFile"]["size"], found["ggufFile"]["blobId"]) == (file, len(FILES[file]), digest(file))
        assert found["mmprojFile"]["rfilename"] == "mmproj-F16.gguf"
    for tag, said in REFUSED.items():
        status, found = asked(place, repo, tag, OLLAMA)
        assert status == 400
        assert said in found["error"]


def test_ollama_finds_every_layer_behind_its_digest(place: Place, repo: str) -> None:
    """The steps of its client: the manifest, then of each layer its size, an address, and from there ranges without a token."""
    status, found = asked(place, repo, "F16", OLLAMA)
    assert (status, found["schemaVersion"], "ggufFile" in found) == (200, 2, False)
    layers = {layer["mediaType"].rpartition(".")[2]: layer for layer in found["layers"]}
    assert {kind: layer["digest"] for kind, layer in layers.items()} == {
        "model": digest("tiny-chat-F16.gguf"), "projector": digest("mmproj-F16.gguf"),
        "template": digest("template"), "system": digest("system"), "params": digest("params"),
    }  # fmt: skip
    for layer in [*found["layers"], found["config"]]:
        address = f"/v2/{repo}/blobs/{layer['digest']}"
        assert int(place.raw("HEAD", address)[1]["content-length"]) == layer["size"]
        status, headers, whole = place.raw("GET", address)
        assert (status, headers["location"]) == (200, address)
        assert f"sha256:{hashlib.sha256(whole).hexdigest()}" == layer["digest"]
    status, headers, part = place.raw("GET", layers["model"]["digest"].join([f"/v2/{repo}/blobs/", ""]), headers={"Range": "bytes=5-8"})
    assert (status, headers["content-range"], part) == (206, "bytes 5-7/8", b"f16")
    assert json.loads(place.raw("GET", f"/v2/{repo}/blobs/{found['config']['digest']}")[2])["rootfs"]["diff_ids"] == [
        layer["digest"] for layer in found["layers"]
    ]


def test_nothing_else_of_a_repo_is_a_layer_and_strangers_see_nothing_private(place: Place, ann: HfApi, repo: str) -> None:
    assert place.raw("GET", f"/v2/{repo}/blobs/{digest('README.md')}")[0] == 404
    assert place.raw("GET", f"/v2/{repo}/blobs/sha256:..%2F..%2Fetc")[0] == 404
    ann.create_repo("ann/empty-GGUF")
    assert asked(place, "ann/empty-GGUF", "latest", OLLAMA) == (400, {"error": "Repository is not GGUF or is not compatible with llama.cpp"})
    ann.update_repo_settings(repo, gated="auto")
    assert asked(place, repo, "F16", OLLAMA)[0] == 401
    ann.update_repo_settings(repo, visibility="private")
    assert asked(place, repo, "F16", OLLAMA)[0] == place.raw("GET", f"/v2/{repo}/blobs/{digest('params')}")[0] == 401
    assert asked(place, repo, "F16", {**OLLAMA, "Authorization": f"Bearer {ann.token}"})[0] == 200


@pytest.mark.parametrize(
    ("path", "label"),
    [  # those of @huggingface/gguf's own tests, and of files that people publish
        ("Meta-Llama-3.1-8B-Instruct-Q4_K_M.gguf", "Q4_K_M"),
        ("subdir/Meta-Llama-3.1-8B-Instruct-Q4_K_M.gguf", "Q4_K_M"),
        ("Codestral-22B-v0.1.gguf", None),
        ("Codestral-22B-v0.1-F32-Q2_K.gguf", "Q2_K"),
        ("Codestral-22B-v0.1-Q4_0_4_4.gguf", "Q4_0"),
        ("Qwen3-4B-UD-Q2_K_XL.gguf", "UD-Q2_K_XL"),
        ("gpt-oss-20b-MXFP4.gguf", "MXFP4"),
        ("Qwable-v1-35B-A3B-MXFP4_MOE.gguf", "MXFP4_MOE"),
        ("x-Q2_K_L.gguf", "Q2_K_L"),
        ("x-Q4_K_L.gguf", None),
        ("x-BF16.gguf", "BF16"),
        ("gemma-3-qat-q4_0-unquantized-BF16.gguf", "BF16"),
        ("Q8_0/x-Q8_0-00001-of-00002.gguf", "Q8_0"),
    ],
)
def test_a_label_is_the_one_that_the_hub_s_pages_print(path: str, label: str | None) -> None:
    assert gguf.label(path) == label


def test_the_latest_is_the_best_up_to_4_bits() -> None:
    assert gguf.chosen(["x-Q8_0.gguf", "x-Q4_K_M.gguf", "x-Q2_K.gguf"], "latest") == "x-Q4_K_M.gguf"
    assert gguf.chosen(["x-Q8_0.gguf", "x-Q2_K.gguf", "x-Q3_K_S.gguf"], "latest") == "x-Q3_K_S.gguf"
    assert gguf.chosen(["x-Q8_0.gguf", "x-BF16.gguf"], "latest") == "x-Q8_0.gguf"
    assert gguf.chosen(["x.gguf", "y.gguf", "mmproj.gguf"], "latest") == "x.gguf"
