import json
from pathlib import Path

import pytest

from builders import contents
from builders.ggufs import weigh


def test_every_byte_of_every_tensor_is_counted(gguf: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(gguf.read_bytes()[:2000])
    assert contents.describe(tmp_path, variants=[gguf, damaged]) == {"file": "contents.json", "variants": 2}
    found = json.loads((tmp_path / "contents.json").read_text())
    rows, whole = found[gguf.name], weigh(gguf)
    assert found["damaged.gguf"] is None
    assert sum(row[3] for row in rows) == whole.tensor_bytes
    assert sum(row[4] for row in rows) == whole.parameters
    assert {row[0] for row in rows if row[1] == "attn_q"} == {0, 1, 2, 3}
    assert {row[2] for row in rows if row[1] == contents.VECTORS} == {"F32"}
    assert len({(row[0], row[1], row[2]) for row in rows}) == len(rows)


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("blk.31.ffn_down_exps.weight", (31, "ffn_down_exps")),
        ("token_embd.weight", (None, "token_embd")),
        ("blk.0.attn_q.bias", (0, "attn_q")),
        ("odd", (None, "odd")),
    ],
)
def test_a_name_tells_layer_and_role(name: str, place: tuple[int | None, str]) -> None:
    assert contents.place(name) == place
