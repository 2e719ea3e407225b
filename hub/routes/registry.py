"""A model as a registry of container images hands it out: Ollama and node-llama-cpp ask for it so, and llama.cpp did before March 2026.

    GET /v2/{ns}/{name}/manifests/{tag}     an image manifest, version 2, schema 2: the layers by digest. `hub.gguf` says which file a tag stands for.
    GET /v2/{ns}/{name}/blobs/sha256:{hex}  a layer, whole or a range of it

Seen of the clients (ollama's server/images.go and server/download.go, node-llama-cpp's src/utils/parseModelUri.ts):

- Only who comes as `User-Agent: llama-cpp…` is told the file's name, in `ggufFile`, and the projector's in `mmprojFile`; it fetches them by /resolve/main/.
- Ollama asks HEAD of a blob for its Content-Length, then GET, whose answer has to be 307, or 200 *with a Location*; from there it fetches ranges, 16 at once,
  without a token. Everything it gets has to have the digest that the manifest names, the config included.
- Ollama takes no file in parts (ollama#5245), and is told so.
- A repo's files `template`, `system` and `params` are layers. The Hub makes up a template and stop strings where a repo has none; this Hub does not, and Ollama
  goes by the one in the GGUF.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from starlette.responses import Response

from hub import gguf
from hub.call import Call
from hub.commits import Entry, Tree
from hub.errors import BadRequest, EntryNotFound
from hub.repos import Repo
from hub.routes import Address
from hub.routes.files import Stream, check_gate

MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG: Final = "application/vnd.docker.container.image.v1+json"
LAYER: Final = "application/vnd.ollama.image."
BESIDE: Final = ("template", "system", "params")  # files at the top of a repo that are layers of the same names


def manifest(call: Call) -> Response:
    """GET and HEAD /v2/{ns}/{name}/manifests/{tag}"""
    repo, tag = call.repo(), call.part("tag")
    tree = call.hub.repos.head(repo, "main").tree
    named = call.request.headers.get("user-agent", "").startswith("llama-cpp")
    path = gguf.chosen(tree, tag)
    if path is None:
        raise BadRequest(_absent(tree, tag))
    if gguf.sharded(path) and not named:
        raise BadRequest("The specified tag is a sharded GGUF. Ollama does not support this yet: https://github.com/ollama/ollama/issues/5245")
    check_gate(call, repo, path)
    image = _image(tree, path)
    if named:
        image |= {"ggufFile": _file(path, tree[path])}
        image |= {} if (beside := gguf.projector(tree)) is None else {"mmprojFile": _file(beside, tree[beside])}
    body = _json(image)
    return Response(body, media_type=MANIFEST, headers={"Docker-Content-Digest": _digest(body), "Vary": "User-Agent", "Cache-Control": "no-cache"})


def blob(call: Call) -> Response:
    """GET and HEAD /v2/{ns}/{name}/blobs/{digest}: of the files that the manifests of the main branch name, and their configs."""
    repo, digest = call.repo(), call.part("digest")
    tree = call.hub.repos.head(repo, "main").tree
    # the address of the answer itself: Ollama wants one to fetch ranges from
    headers = {"Docker-Content-Digest": digest, "Location": call.request.scope["path"], "ETag": f'"{digest.partition(":")[2]}"', "Cache-Control": "no-cache"}
    for path, entry in _layered(tree):
        if digest == f"sha256:{entry.sha256}":
            check_gate(call, repo, path)
            return Stream(call.hub.objects.path(entry.sha256), headers=headers, media_type="application/octet-stream")
    for path in gguf.models(tree):
        config = _config(tree, path)
        if digest == _digest(config):
            return Response(config, media_type=CONFIG, headers=headers)
    raise EntryNotFound(f"{_named(repo)} has no blob {digest[:80]}.")


def _absent(tree: Tree, tag: str) -> str:
    if not gguf.models(tree):
        return "Repository is not GGUF or is not compatible with llama.cpp"
    if gguf.valid(tag):
        return 'The specified tag is not available in the repository. Please use another tag or "latest"'
    return 'The specified tag is not a valid quantization scheme. Please use another tag or "latest"'


def _image(tree: Tree, path: str) -> dict[str, Any]:
    """The manifest of one file with what the repo says beside it."""
    config = _config(tree, path)
    layers = [{"digest": f"sha256:{entry.sha256}", "mediaType": LAYER + kind, "size": entry.size} for kind, entry in _layers(tree, path)]
    return {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"digest": _digest(config), "mediaType": CONFIG, "size": len(config)},
        "layers": layers,
    }


def _layers(tree: Tree, path: str) -> Iterator[tuple[str, Entry]]:
    yield "model", tree[path]
    if (beside := gguf.projector(tree)) is not None:
        yield "projector", tree[beside]
    yield from ((kind, tree[kind]) for kind in BESIDE if kind in tree)


def _layered(tree: Tree) -> Iterator[tuple[str, Entry]]:
    """Everything that some manifest names."""
    return ((path, entry) for path, entry in tree.items() if path in BESIDE or path.endswith(".gguf"))


def _config(tree: Tree, path: str) -> bytes:
    """What Ollama is told of the model beside its layers; it reads the rest from the GGUF."""
    said = {"model_format": "gguf", "file_type": gguf.label(path) or "unknown", "architecture": "amd64", "os": "linux"}
    return _json({**said, "rootfs": {"type": "layers", "diff_ids": [f"sha256:{entry.sha256}" for _, entry in _layers(tree, path)]}})


def _file(path: str, entry: Entry) -> Mapping[str, Any]:
    lfs = {"lfs": {"sha256": entry.sha256, "size": entry.size, "pointerSize": entry.pointer_size}} if entry.lfs else {}
    return {"rfilename": path, "blobId": f"sha256:{entry.sha256}", "size": entry.size, **lfs}


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _named(repo: Repo) -> str:
    return f"{repo.type} {repo.id}"


ROUTES: Final = (
    Address("GET", "/v2/{ns}/{name}/manifests/{tag}", manifest),
    Address("GET", "/v2/{ns}/{name}/blobs/{digest}", blob),
)
