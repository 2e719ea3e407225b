from pathlib import Path

import pytest

from config.words import Kind, Variant
from service.execution.kept import File, Output
from service.release.measuring.groups import MOST, WORKING_BYTES, groups
from service.release.products import Made

GIB = 2**30


def made(tag: str, size: int, kind: Kind = Kind.GGUF) -> Made:
    name = f"{tag}.gguf" if kind is Kind.GGUF else "model.safetensors"
    output = Output(key=tag, folder=Path(tag), result={"file": name}, files=(File(path=name, sha256="0" * 64, bytes=size),), seconds=0)
    return Made(variant=Variant(tag=tag, kind=kind), output=output)


BASE = made("base", 8 * GIB).output


def tags(variants: list[Made], memory: int) -> list[list[str]]:
    return [[item.variant.tag for item in group] for group in groups(variants, BASE, memory)]


@pytest.mark.parametrize(
    ("memory", "expected"),
    [
        (0, [["a"], ["b"], ["c"]]),  # one at a time even when it does not fit
        (8 * GIB + 8 * GIB + 3 * WORKING_BYTES, [["a", "b"], ["c"]]),
        (8 * GIB + 8 * GIB + 3 * WORKING_BYTES - 1, [["a"], ["b", "c"]]),
        (100 * GIB, [["a", "b", "c"]]),
    ],
)
def test_as_many_as_memory_holds_in_order(memory: int, expected: list[list[str]]) -> None:
    variants = [made("16bit", GIB, Kind.SIXTEEN_BIT), made("a", 5 * GIB), made("b", 3 * GIB), made("c", 2 * GIB), made("bnb-4bit", GIB, Kind.BNB_4BIT)]
    assert tags(variants, memory) == expected


def test_a_group_has_a_limit() -> None:
    assert [len(group) for group in tags([made(str(i), 1) for i in range(MOST + 3)], 1000 * GIB)] == [MOST, 3]


def test_nothing_to_group() -> None:
    assert tags([made("16bit", GIB, Kind.SIXTEEN_BIT)], GIB) == []
