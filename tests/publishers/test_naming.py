import pytest

from config.errors import ConfigurationError
from config.words import Kind, Variant
from publishers import naming

GGUF = Variant(tag="Q4_K_M", kind=Kind.GGUF)


def test_each_kind_has_its_repo_and_each_nf4_variant_one_of_its_own() -> None:
    assert naming.repo_id(GGUF, "acme", "tiny-chat") == "acme/tiny-chat-GGUF"
    assert naming.repo_id(Variant(tag="16bit", kind=Kind.SIXTEEN_BIT), "acme", "tiny-chat") == "acme/tiny-chat"
    assert naming.repo_id(Variant(tag="bnb-4bit", kind=Kind.BNB_4BIT), "acme", "tiny-chat") == "acme/tiny-chat-bnb-4bit"
    assert naming.repo_id(Variant(tag="dynamic-bnb-4bit", kind=Kind.BNB_4BIT), "acme", "tiny-chat") == "acme/tiny-chat-dynamic-bnb-4bit"


@pytest.mark.parametrize(
    ("namespace", "name"), [("acme", "a--b"), ("acme", "../x"), ("acme", "x" * 96), ("", "x"), ("a/b", "x"), ("acme", "x y"), ("acme", "x..y"), ("-a", "x")]
)
def test_names_the_hub_refuses_are_refused_here(namespace: str, name: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be the name of a repo"):
        naming.repo_id(GGUF, namespace, name)


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../b", "a//b", ".", "..", "a/.git/config", "a b", "x\n", "", "a`b`", "-$(x)"])
def test_paths_that_could_leave_the_repo_are_refused(path: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be published"):
        naming.checked_path(path)


@pytest.mark.parametrize("path", ["README.md", ".gitattributes", "model-00001-of-00002.safetensors", "a/b/c.json", "params"])
def test_plain_paths_pass(path: str) -> None:
    assert naming.checked_path(path) == path
