import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from builders import tables
from builders.tables import convert, fitting
from config.errors import ConfigurationError

SAID = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Good day"}]
SHARED = [{"from": "system", "value": "Be brief."}, {"from": "human", "value": "Hello"}, {"from": "gpt", "value": "Good day"}]


def table(folder: Path, **columns: list[Any]) -> Path:
    path = folder / "part-0.parquet"
    parquet.write_table(pa.table(columns), path)
    return path


def lines(path: Path) -> list[Any]:
    return [json.loads(line)["messages"] for line in path.read_text().splitlines()]


def test_wikitext_becomes_the_file_that_it_was_made_from(tmp_path: Path) -> None:
    """In wiki.test.raw an empty line is a blank and a newline; the Hub's rows are its lines, and empty ones hold nothing."""
    file = table(tmp_path, text=["", " = Robert Boulter = \n", "", " Robert Boulter is an actor . \n", ""])
    assert not fitting(file, "plain")
    assert convert(file, "plain", tmp_path).read_text() == " \n = Robert Boulter = \n \n Robert Boulter is an actor . \n \n"


def test_documents_are_kept_apart(tmp_path: Path) -> None:
    file = table(tmp_path, text=["One\ntwo", None, "", "Three"], url=["a", "b", "c", "d"])
    assert convert(file, "plain", tmp_path).read_text() == "One\ntwo\n\nThree\n\n"


def test_a_table_without_text_says_which_columns_it_has(tmp_path: Path) -> None:
    file = table(tmp_path, prompt=["a"], answer=["b"])
    with pytest.raises(ConfigurationError, match=r"has no column `text`; its columns: prompt, answer\. Name another file"):
        convert(file, "plain", tmp_path)
    with pytest.raises(ConfigurationError, match=r"has no column `messages` or `conversations`; its columns: prompt, answer"):
        convert(file, "chat", tmp_path)


@pytest.mark.parametrize("column", ["messages", "conversations"])
@pytest.mark.parametrize("said", [SAID, SHARED])
def test_conversations_in_a_table(tmp_path: Path, column: str, said: list[dict[str, str]]) -> None:
    file = table(tmp_path, **{column: [said, said[-2:]], "id": [1, 2]})
    found = lines(convert(file, "chat", tmp_path))
    assert [message["content"] for message in found[0]] == [message.get("content") or message.get("value") for message in said]
    assert [message["role"] for message in found[1]] == ["user", "assistant"]
    assert all(set(message) == {"role", "content"} for conversation in found for message in conversation)


def test_what_a_message_has_beside_its_text_is_kept_and_what_is_empty_is_not(tmp_path: Path) -> None:
    call = [{"function": {"name": "time", "arguments": "{}"}}]
    said = [{"role": "user", "content": "What time is it?", "tool_calls": None}, {"role": "assistant", "content": "", "tool_calls": call}]
    (found,) = lines(convert(table(tmp_path, messages=[said]), "chat", tmp_path))
    assert found == [{"role": "user", "content": "What time is it?"}, {"role": "assistant", "content": "", "tool_calls": call}]


def test_json_lines_of_messages_are_used_as_they_are_and_those_of_another_form_converted(tmp_path: Path) -> None:
    file = tmp_path / "said.jsonl"
    file.write_text(json.dumps({"messages": SAID}) + "\n")
    assert fitting(file, "chat")
    file.write_text("\n" + json.dumps({"id": 1, "conversations": SHARED}) + "\n")
    assert not fitting(file, "chat")
    assert lines(convert(file, "chat", tmp_path)) == [[{"role": "system", "content": "Be brief."}, *SAID]]


@pytest.mark.parametrize("name", ["wiki.test.raw", "notes.txt", "said.jsonl"])
def test_plain_text_is_never_converted(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("text")
    assert fitting(tmp_path / name, "plain")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"conversations": SHARED}, {"id": 1}], r"row 2: no list of messages under `messages` or `conversations`; what is there: id\."),
        ([{"conversations": SHARED}, [1]], r"row 2: a list, not an object"),
        ([{"conversations": [{"from": "narrator", "value": "x"}]}], r"`role`, and is `from` 'narrator'; known are human, .*What it has: from, value"),
        ([{"conversations": ["x"]}], "row 1: a message is a str"),
        ([{"conversations": []}], "row 1: no list of messages"),
    ],
)
def test_what_is_no_conversation_is_told_with_its_row(tmp_path: Path, rows: list[Any], message: str) -> None:
    file = tmp_path / "said.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ConfigurationError, match=message):
        convert(file, "chat", tmp_path)


def test_broken_files_are_told(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(ConfigurationError, match=r"a\.parquet cannot be read as parquet"):
        convert(tmp_path / "a.parquet", "plain", tmp_path)
    (tmp_path / "b.jsonl").write_text("{}\nno json\n")
    with pytest.raises(ConfigurationError, match=r"row 1: no list of messages"):
        convert(tmp_path / "b.jsonl", "chat", tmp_path)
    (tmp_path / "c.jsonl").write_bytes(b"\xff\n")
    assert fitting(tmp_path / "c.jsonl", "chat"), "the check of a recipe's data tells it with all else that is wrong"
    with pytest.raises(ConfigurationError, match=r"c\.jsonl cannot be read"):
        convert(tmp_path / "c.jsonl", "chat", tmp_path)
    with pytest.raises(ConfigurationError, match="holds no rows"):
        convert(table(tmp_path, text=pa.array([], pa.string())), "plain", tmp_path)


def test_a_small_file_that_unpacks_to_a_huge_one_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "LARGEST", 1000)
    file = table(tmp_path, text=["x" * 600] * 2)
    with pytest.raises(ConfigurationError, match=r"holds more than .* GB of text"):
        convert(file, "plain", tmp_path)
