import pytest

from config.near import meant


@pytest.mark.parametrize(("written", "near"), [("memory_gb", "memory_gib"), ("MEMORY_GIB", "memory_gib"), ("theads", "threads"), ("colour", None), ("", None)])
def test_the_nearest_name_was_meant_or_none(written: str, near: str | None) -> None:
    assert meant(written, ["memory_gib", "threads"]) == near


def test_how_near_it_must_be_can_be_said() -> None:
    assert meant("port", ["api_port"]) == "api_port"
    assert meant("port", ["api_port"], cutoff=0.8) is None
