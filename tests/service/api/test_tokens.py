import pytest

from config.errors import ConfigurationError
from service.api.tokens import check_token, create_token, revoke_token
from service.store import Store


def test_no_token_works_until_one_is_made(file_store: Store) -> None:
    assert file_store.tokens() == ()
    assert check_token(file_store, "") is None
    assert check_token(file_store, "sluice_") is None


def test_a_token_works_until_it_is_revoked(file_store: Store) -> None:
    token, other = create_token(file_store, "ci"), create_token(file_store, "laptop")
    assert token.startswith("sluice_")
    assert len(token) >= len("sluice_") + 43  # 256 bits in base64
    assert check_token(file_store, token).name == "ci"
    assert check_token(file_store, token[:-1]) is None
    revoke_token(file_store, "ci")
    assert check_token(file_store, token) is None
    assert check_token(file_store, other).name == "laptop"
    assert [(item.name, item.revoked is None) for item in file_store.tokens()] == [("ci", False), ("laptop", True)]


def test_only_a_hash_is_stored(file_store: Store) -> None:
    token = create_token(file_store, "ci")
    assert token.removeprefix("sluice_") not in repr(file_store.tokens()) + repr(file_store.audit_events())


@pytest.mark.parametrize("name", ["", " ci", "a/b", "x" * 101, "new\nline"])
def test_a_token_name_is_plain(file_store: Store, name: str) -> None:
    with pytest.raises(ConfigurationError, match="not a token name"):
        create_token(file_store, name)
