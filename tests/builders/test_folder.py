"""A folder as a release: the same files as from the Hub, under a commit that their content decides."""

import errno
import json
import os
import re
import shutil
from pathlib import Path

import pytest

from builders import folder
from builders.names import held_in
from builders.sources import FolderSource
from config.digests import file_sha256
from config.errors import ConfigurationError, UpstreamError
from config.words import Release
from tests.heard import hearing, whole

MODEL = Path(__file__).parents[2] / "demo" / "model"
TAKEN = {
    "README.md", "config.json", "generation_config.json", "model.safetensors", "special_tokens_map.json", "tokenizer.json", "tokenizer.model",
    "tokenizer_config.json",
}  # fmt: skip


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(MODEL, tmp_path / "model"))


def take(model: Path, out: Path, release: Release) -> dict[str, object]:
    out.mkdir()
    return folder.fetch(out, folder=model, release=release)


def test_words_of_a_readme_that_no_hub_has_looked_at_are_made_fit_for_one(model: Path) -> None:
    for stated, found in (("gpl3", ("other", "gpl3")), ("Apache-2.0", ("Apache-2.0", None)), ("other\nlicense_name: mine", ("other", "mine"))):
        (model / "README.md").write_text(f"---\nlicense: {stated}\nlanguage: [no, en]\n---\n")
        upstream = folder.resolve(model, "mine", "main")
        assert (upstream.license, upstream.license_name) == found
        assert upstream.languages == ("no", "en"), "Norwegian is no boolean"


def test_a_folder_is_a_release_with_what_its_readme_says(model: Path) -> None:
    found = folder.resolve(model, "mine", "main")
    assert found.release.local
    assert found.release.repo == found.release.name == "mine"
    assert re.fullmatch(r"[0-9a-f]{40}", found.release.sha)
    assert (found.license, found.languages, found.private, found.gated) == ("apache-2.0", ("en",), False, False)
    assert folder.resolve(model, "mine", found.release.sha) == found


def test_its_commit_is_that_of_the_wanted_files_wherever_they_lie(model: Path, tmp_path: Path) -> None:
    before = folder.resolve(model, "mine", "main").release.sha
    assert before == folder.commit({name: file_sha256(model / name) for name in TAKEN})
    (model / "checkpoint-500").mkdir()
    (model / "checkpoint-500" / "model.safetensors").write_text("not looked at")
    (model / "training_args.bin").write_text("neither is this")
    (model / "notes: mine?.txt").write_text("nor this")
    moved = model.rename(tmp_path / "elsewhere")
    assert folder.resolve(moved, "mine", "main").release.sha == before
    (moved / "tokenizer_config.json").write_text("{}")
    assert folder.resolve(moved, "mine", "main").release.sha != before


def test_what_is_taken_is_whole_and_stays_when_the_folder_is_edited_in_place(model: Path, tmp_path: Path) -> None:
    release = folder.resolve(model, "mine", "main").release
    with hearing() as heard:
        result = take(model, tmp_path / "out", release)
    assert {path.name for path in (tmp_path / "out").iterdir()} == TAKEN
    assert whole(heard, "bytes") == [result["total"]] == [sum((model / name).stat().st_size for name in TAKEN)]
    kept = (tmp_path / "out" / "model.safetensors").read_bytes()
    with (model / "model.safetensors").open("r+b") as file:
        file.seek(-8, os.SEEK_END)
        file.write(b"edited!!")
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == kept
    assert not (tmp_path / "out" / "model.safetensors").samefile(model / "model.safetensors")


def test_a_folder_that_changed_is_refused_in_words(model: Path, tmp_path: Path) -> None:
    release = folder.resolve(model, "mine", "main").release
    with (model / "model.safetensors").open("r+b") as file:  # same size, and the times put back
        times = model.joinpath("model.safetensors").stat()
        file.seek(-8, os.SEEK_END)
        file.write(b"edited!!")
    os.utime(model / "model.safetensors", ns=(times.st_atime_ns, times.st_mtime_ns))
    for refused in (lambda: folder.resolve(model, "mine", release.sha), lambda: take(model, tmp_path / "out", release)):
        with pytest.raises(UpstreamError, match="has changed since the run was queued"):
            refused()


def test_a_digest_is_known_again_only_while_the_file_is_the_same(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "SETTLED", -1)
    first = folder.resolve(model, "mine", "main").release.sha
    monkeypatch.setattr(folder, "hashed", lambda path, heard: pytest.fail(f"{path} was read again"))
    assert folder.resolve(model, "mine", "main").release.sha == first
    monkeypatch.undo()
    monkeypatch.setattr(folder, "SETTLED", -1)
    (model / "config.json").write_bytes((model / "config.json").read_bytes().replace(b"llama", b"llamb"))
    assert folder.resolve(model, "mine", "main").release.sha != first


def test_shards_are_taken_by_their_index(model: Path) -> None:
    (model / "model.safetensors").rename(model / "model-00001-of-00001.safetensors")
    index = {"weight_map": {"some.weight": "model-00001-of-00001.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    assert {"model.safetensors.index.json", "model-00001-of-00001.safetensors"} <= folder.sizes(model).keys()
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"some.weight": "../model.safetensors"}}))
    with pytest.raises(UpstreamError, match="not a plain"):
        folder.sizes(model)
    (model / "model.safetensors.index.json").write_text("[" * 100_000)
    with pytest.raises(UpstreamError, match="is not JSON"):
        folder.sizes(model)


def test_a_disk_that_fills_while_files_are_copied_is_not_told_as_a_file_that_cannot_be_read(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: Path, target: Path, heard: object) -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    release = folder.resolve(model, "mine", "main").release
    monkeypatch.setattr(folder, "copy", full)
    with pytest.raises(UpstreamError, match=r"README\.md cannot be copied to .*/out: No space left on device") as caught:
        take(model, tmp_path / "out", release)
    assert "cannot be read" not in str(caught.value)


def test_a_file_that_is_not_there_is_no_bare_error(model: Path, tmp_path: Path) -> None:
    with pytest.raises(UpstreamError, match=r"nowhere\.json cannot be copied to .*: No such file or directory"):
        FolderSource(folder=model).download(Release(repo="mine", sha="0" * 40), "nowhere.json", tmp_path)


def test_links_are_followed_inside_the_folder_and_nowhere_else(model: Path, tmp_path: Path) -> None:
    (model / "blobs").mkdir()
    (model / "config.json").rename(model / "blobs" / "config")
    (model / "config.json").symlink_to(model / "blobs" / "config")
    assert folder.sizes(model)["config.json"] == (MODEL / "config.json").stat().st_size
    (model / "LICENSE").symlink_to(MODEL / "README.md")
    with pytest.raises(UpstreamError, match="leads out of the folder"):
        folder.resolve(model, "mine", "main")
    (model / "LICENSE").unlink()
    (model / "LICENSE").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UpstreamError, match="cannot be read"):
        folder.resolve(model, "mine", "main")


def test_what_is_no_file_is_not_read(model: Path) -> None:
    os.mkfifo(model / "LICENSE")
    with pytest.raises(UpstreamError, match="not a plain file"):
        folder.resolve(model, "mine", "main")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ((), "no config.json"),
        (("config.json",), "no safetensors weights"),
        (("config.json", "pytorch_model.bin"), "can run code"),
        (("config.json", "adapter_config.json", "adapter_model.safetensors"), "is an adapter of the kind None"),
        (("model-Q8_0.gguf",), "of GGUF only quantized files: model-Q8_0.gguf. What quantizing took away cannot be had back"),
        (("m-F16.gguf", "mmproj-m-F16.gguf", "config.json"), "holds mmproj-m-F16.gguf and no safetensors: a model that reads images"),
        (("m-BF16.gguf", "sluice-manifest.json"), "holds what Sluice published, in GGUF alone. Its sluice-manifest.json names the upstream"),
        (("adapter_config.json", "adapter_model.bin"), "no adapter_model.safetensors; it holds adapter_model.bin, which can run code"),
    ],
)
def test_a_folder_that_is_no_model_is_refused(tmp_path: Path, names: tuple[str, ...], words: str) -> None:
    for name in names:
        (tmp_path / name).write_text("{}")
    with pytest.raises(UpstreamError, match=words):
        folder.resolve(tmp_path, "mine", "main")


def test_weights_with_a_damaged_header_are_refused_before_anything_is_done(model: Path) -> None:
    (model / "model.safetensors").write_bytes(b"\xff" * 100)
    source = FolderSource(folder=model)
    with pytest.raises(UpstreamError, match="header"):
        source.headers(Release(repo="mine", sha="0" * 40), source.sizes(Release(repo="mine", sha="0" * 40)))


@pytest.mark.parametrize(
    "head", ["", "no front matter", "---\n[unclosed\n---\n", "---\n- a list\n---\n", "---\nlicense: 7\n---\n", "---\nlicense: 2026-02-31\n---\n"]
)
def test_a_card_that_says_nothing_readable_names_no_licence(model: Path, head: str) -> None:
    (model / "README.md").write_text(head)
    assert folder.resolve(model, "mine", "main").license is None
    (model / "README.md").unlink()
    assert folder.resolve(model, "mine", "main").license is None


@pytest.mark.parametrize(
    ("text", "name"),
    [("My Model (v2)", "My-Model-v2"), ("..hidden", "hidden"), ("a--b", "a-b"), ("fine.git", "fine"), ("Llama-3.2_ft", "Llama-3.2_ft"), ("x" * 200, "x" * 80)],
)
def test_a_folder_s_name_is_made_one_that_repos_may_have(text: str, name: str) -> None:
    assert folder.legal_name(text) == name


@pytest.mark.parametrize("name", ["", "a/b", "a--b", "-a", "a..b", "a.", "ä", "x" * 97])
def test_a_name_that_repos_may_not_have_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="--name"):
        folder.checked_name(name)


def test_a_folder_with_gguf_alone_is_that_file_with_card_and_terms(tmp_path: Path) -> None:
    model = tmp_path / "model"
    (model / "BF16").mkdir(parents=True)
    for name in ("README.md", "LICENSE", "config.json", "m-Q4_0.gguf", "m-F16.gguf", "BF16/m-BF16-00001-of-00002.gguf", "BF16/m-BF16-00002-of-00002.gguf"):
        (model / name).write_text(name)
    parts = ("BF16/m-BF16-00001-of-00002.gguf", "BF16/m-BF16-00002-of-00002.gguf")
    assert folder.sizes(model).keys() == {"README.md", "LICENSE", *parts}
    found = folder.resolve(model, "mine", "main")
    assert (found.gguf, found.over, found.adapter) == (parts, ("m-F16.gguf",), False)
    (tmp_path / "out").mkdir()
    taken = folder.fetch(tmp_path / "out", folder=model, release=found.release)
    assert {file["path"] for file in taken["files"]} == {"README.md", "LICENSE", *parts}
    assert (tmp_path / "out" / parts[1]).read_text() == parts[1]
    (model / parts[1]).write_text("changed")
    assert folder.resolve(model, "mine", "main").release.sha != found.release.sha
    (tmp_path / "again").mkdir()
    with pytest.raises(UpstreamError, match="has changed since"):
        folder.fetch(tmp_path / "again", folder=model, release=found.release)
    (model / parts[1]).write_text(parts[1])
    (model / "m-Q4_0.gguf").write_text("changed")
    assert folder.resolve(model, "mine", "main").release.sha == found.release.sha, "which is no part of it"


def test_terms_in_a_folder_are_of_the_release_and_nothing_else_there(model: Path, tmp_path: Path) -> None:
    terms = {"legal/Notice", "docs/legal/Terms of Use.md"}
    for name in (*terms, "eval/results.json", ".git/LICENSE", "eval/terms/results.json"):
        (model / name).parent.mkdir(parents=True, exist_ok=True)
        (model / name).write_text("{}", encoding="utf-8")
    assert {name for name in folder.sizes(model) if "/" in name} == terms
    found = folder.resolve(model, "mine", "main")
    (tmp_path / "out").mkdir()
    folder.fetch(tmp_path / "out", folder=model, release=found.release)
    assert {name for name, _ in held_in(tmp_path / "out") if "/" in name} == terms
