"""Data sets in the forms in which the public Hub has them, for an embedded one."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from huggingface_hub import CommitOperationAdd, HfApi
from pyarrow import parquet

from hub.tokens import create_token

DATA = Path(__file__).parents[1] / "demo" / "data"
TEXT = "hub://datasets/owner/text@main/raw/test-00000-of-00001.parquet"
CHAT = "hub://datasets/owner/chat@main/train.parquet"
MMLU = "hub://datasets/owner/mmlu@main/all"


def packed(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """A parquet file of these rows."""
    sink = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(list(rows)), sink)
    return sink.getvalue()


def publish(api: HfApi, repo: str, files: Mapping[str, bytes], license: str = "mit") -> str:
    """Put these files into a data set, made when it is not there; the commit."""
    api.create_repo(repo, repo_type="dataset", exist_ok=True)
    card = f"---\nlicense: {license}\n---\n# Data\n".encode()
    operations = [CommitOperationAdd(path, content) for path, content in {**files, "README.md": card}.items()]
    return api.create_commit(repo, operations, commit_message="publish", repo_type="dataset").oid


def conversations(name: str, column: str = "messages") -> bytes:
    """A file of the demo's conversations as a table."""
    return packed([{column: json.loads(line)["messages"], "source": "demo"} for line in (DATA / name).read_text().splitlines()])


def wikitext(name: str) -> bytes:
    """A text of the demo as the Hub has wikitext: a row for each line."""
    return packed([{"text": line if line.strip() else ""} for line in (DATA / name).read_text().splitlines(keepends=True)])


def questions() -> dict[str, bytes]:
    """The demo's questions as `cais/mmlu` has them, and splits that nobody asks for."""
    found: dict[str, bytes] = {}
    for split in ("dev", "test"):
        rows = []
        for file in sorted((DATA / "tiny_mmlu" / split).glob("*.csv")):
            subject = file.stem.removesuffix(f"_{split}")
            with file.open(newline="") as lines:
                rows += [{"question": row[0], "subject": subject, "choices": row[1:5], "answer": "ABCD".index(row[5])} for row in csv.reader(lines)]
        found[f"all/{split}-00000-of-00001.parquet"] = packed(rows)
    return {
        **found,
        "all/auxiliary_train-00000-of-00001.parquet": packed([{"question": "unused"}]),
        "all/validation-00000-of-00001.parquet": packed([{"a": 1}]),
    }


def owned(root: Path, url: str) -> HfApi:
    """The client of `owner`, who has published TEXT, CHAT and MMLU on the Hub that keeps its files in `root`."""
    found = HfApi(endpoint=url, token=create_token(root, user="owner"))
    publish(found, "owner/text", {"raw/test-00000-of-00001.parquet": wikitext("evaluation_questions.txt")}, "[cc-by-sa-3.0, gfdl]")
    publish(found, "owner/chat", {"train.parquet": conversations("calibration.jsonl"), "notes.txt": b"plain words\n"}, "apache-2.0")
    publish(found, "owner/mmlu", questions())
    return found
