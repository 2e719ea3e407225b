"""The records that rooms hand to one another, as far as they say more than what they hold."""

import pytest

from config.words import Release


@pytest.mark.parametrize(
    ("repo", "name"), [("a/b", "b"), ("a/b-GGUF", "b"), ("a/b.gguf", "b"), ("my-tune", "my-tune"), ("a/GGUF", "GGUF"), ("a/gguf-tools", "gguf-tools")]
)
def test_a_release_is_called_without_its_owner_and_without_the_form_that_it_is_in(repo: str, name: str) -> None:
    assert Release(repo=repo, sha="0" * 40).name == name
