"""What an older transformers makes of folders of safetensors: the same, something else, or a refusal in words."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from builders import bnb
from config.words import Measurement
from engines import environments
from engines.environments import TRANSFORMERS_4
from qa import older
from qa.readers.words import BITS16, NF4
from tests import architectures, releases
from tests.qa.conftest import Release
from tests.releases import GONE, edit


def measured(out: Path, folder: Path, form: str = BITS16, version: str | None = TRANSFORMERS_4.version) -> Measurement:
    found: dict[str, Any]
    [found] = older.compare(out, variant=folder, form=form, older=version)["measurements"]
    assert found["name"] == "older.failures"
    return Measurement(**found)


def newer(out: Path) -> Path:
    """A model of a kind that transformers 4 does not know."""
    return architectures.saved("Ministral3", out, architectures.sizes(**architectures.bundled(out, spaced=False)))


def test_where_it_was_not_fetched_nothing_is_looked_at(clean: Release, tmp_path: Path) -> None:
    found = measured(tmp_path, clean.model, version=None)
    assert found.inapplicable == "transformers 4.57.6 is not installed beside Sluice: `make readers` fetches it"


@pytest.mark.slow
def test_what_it_reads_alike_reads_otherwise_and_refuses(clean: Release, tmp_path: Path, fetched: Callable[[environments.Environment], None]) -> None:
    fetched(TRANSFORMERS_4)
    assert (measured(tmp_path, clean.model).value, measured(tmp_path, clean.model).details) == (0, ())
    (tmp_path / "nf4").mkdir()
    bnb.quantize(tmp_path / "nf4", model=clean.model, threads=1)
    assert measured(tmp_path, tmp_path / "nf4", NF4).value == 0

    other = releases.clean(tmp_path / "other")
    edit(other / "config.json", rope_parameters={"rope_type": "default", "rope_theta": 500.0}, rope_theta=GONE, rope_scaling=GONE)
    found = measured(tmp_path, other)
    assert found.value == 1
    assert found.details[0].startswith("transformers 4.57.6 reads another model: KLD ")

    unknown = newer(tmp_path / "unknown")
    found = measured(tmp_path, unknown)
    assert (found.value, found.inapplicable) == (0, None)
    assert found.details[0].startswith("transformers 4.57.6 refuses this model: ")
