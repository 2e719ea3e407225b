import pytest

from config.errors import ConfigurationError
from publishers import naming


def test_a_repo_is_named_by_its_namespace_and_its_name() -> None:
    assert naming.repo_id("acme", "tiny-chat-GGUF") == "acme/tiny-chat-GGUF"


@pytest.mark.parametrize(
    ("namespace", "name"), [("acme", "a--b"), ("acme", "../x"), ("acme", "x" * 97), ("", "x"), ("a/b", "x"), ("acme", "x y"), ("acme", "x..y"), ("-a", "x")]
)
def test_names_the_hub_refuses_are_refused_here(namespace: str, name: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be the name of a repo"):
        naming.repo_id(namespace, name)


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../b", "a//b", ".", "..", "a/.git/config", "x\n", "", "a`b`", "-$(x)", " x", "x ", "a/ b"])
def test_paths_that_could_leave_the_repo_are_refused(path: str) -> None:
    for checked in (naming.checked_path, naming.checked_argument):
        with pytest.raises(ConfigurationError, match="cannot be published"):
            checked(path)


@pytest.mark.parametrize("path", ["README.md", ".gitattributes", "model-00001-of-00002.safetensors", "a/b/c.json", "params"])
def test_plain_paths_pass(path: str) -> None:
    assert naming.checked_path(path) == naming.checked_argument(path) == path


@pytest.mark.parametrize("path", ["Terms of Use.md", "docs/legal/LICENSE (1).txt"])
def test_terms_may_have_blanks_and_nothing_that_stands_in_a_command(path: str) -> None:
    assert naming.checked_path(path) == path
    with pytest.raises(ConfigurationError, match="cannot be published"):
        naming.checked_argument(path)
