import re

import pytest

from config.errors import ConfigurationError
from config.words import Kind
from publishers import naming


def test_each_kind_has_its_repo() -> None:
    assert naming.repo_id(Kind.GGUF, "acme", "tiny-chat") == "acme/tiny-chat-GGUF"
    assert naming.repo_id(Kind.SIXTEEN_BIT, "acme", "tiny-chat") == "acme/tiny-chat"
    assert naming.repo_id(Kind.BNB_4BIT, "acme", "tiny-chat") == "acme/tiny-chat-bnb-4bit"


@pytest.mark.parametrize(
    ("namespace", "name"), [("acme", "a--b"), ("acme", "../x"), ("acme", "x" * 96), ("", "x"), ("a/b", "x"), ("acme", "x y"), ("acme", "x..y"), ("-a", "x")]
)
def test_names_the_hub_refuses_are_refused_here(namespace: str, name: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be the name of a repo"):
        naming.repo_id(Kind.GGUF, namespace, name)


@pytest.mark.parametrize("tag", ["Q4_K_M", "UD-Q4_K_XL", "BF16", "IQ2_XXS"])
def test_llama_cpp_finds_a_variant_by_its_tag(tag: str) -> None:
    file = naming.gguf_file("tiny-chat", tag)
    assert re.search(tag.lower() + "[.-]", file, re.IGNORECASE)  # the pattern of llama.cpp's `-hf repo:tag`


@pytest.mark.parametrize("tag", ["", "Q4.0", "Q4/0", "Q4 0", "_Q4", "Q4\n"])
def test_other_tags_are_refused(tag: str) -> None:
    with pytest.raises(ConfigurationError):
        naming.gguf_file("tiny-chat", tag)


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../b", "a//b", ".", "..", "a/.git/config", "a b", "x\n", "", "a`b`", "-$(x)"])
def test_paths_that_could_leave_the_repo_are_refused(path: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be published"):
        naming.checked_path(path)


@pytest.mark.parametrize("path", ["README.md", ".gitattributes", "model-00001-of-00002.safetensors", "a/b/c.json", "params"])
def test_plain_paths_pass(path: str) -> None:
    assert naming.checked_path(path) == path
