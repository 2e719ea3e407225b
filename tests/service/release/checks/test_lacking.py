"""Missing weights are told before anything is downloaded, by headers and config.json, as the release will leave that."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from builders.weights import read_header, weight_files
from config.errors import UpstreamError
from config.recipe import Recipe
from service.release.checks import lacking
from service.release.prospect import Prospect
from tests import releases
from tests.releases import GONE

MakeProspect = Callable[..., Prospect]
LAYER = "model.layers.1.mlp.up_proj.weight"


def of(prospect: MakeProspect, folder: Path, **changed: Any) -> Prospect:
    """What is known of a model in a folder."""
    stored = {tensor.name: tensor for path in weight_files(folder) for tensor in read_header(path)}
    config = json.loads((folder / "config.json").read_bytes()) | changed
    return replace(prospect(), stored=stored, config={key: value for key, value in config.items() if value is not GONE})


def without(known: Prospect, name: str) -> Prospect:
    return replace(known, stored={key: tensor for key, tensor in known.stored.items() if key != name})


@pytest.mark.parametrize("made", [releases.clean, releases.in_shards, releases.float8_original, releases.head_neither_tied_nor_there])
def test_a_whole_release_is_not_spoken_of_and_one_without_a_matrix_refused(made: releases.Oddity, prospect: MakeProspect, tmp_path: Path) -> None:
    known = of(prospect, made(tmp_path / "model"))
    assert list(lacking.look(known)) == []
    with pytest.raises(UpstreamError, match=rf"lacks? {re.escape(LAYER)}, which the architecture that config\.json names has"):
        list(lacking.look(without(known, LAYER)))


def test_what_a_recipe_without_fixes_leaves_untied_is_refused(recipe: Callable[..., Recipe], prospect: MakeProspect, tmp_path: Path) -> None:
    known = of(prospect, releases.head_neither_tied_nor_there(tmp_path / "model"))
    with pytest.raises(UpstreamError, match=r"^model\.safetensors lacks lm_head\.weight, .* `fixes: true` see to"):
        list(lacking.look(replace(known, recipe=recipe(fixes=False))))


@pytest.mark.parametrize("kind", ["unheard-of", "voxtral"])
def test_what_transformers_does_not_run_is_refused(kind: str, prospect: MakeProspect, tmp_path: Path) -> None:
    said = rf"^upstream/model cannot be released, .* transformers .* no code for language models of the architecture '{kind}', .* `-hf`\. .* nobody measures\."
    with pytest.raises(UpstreamError, match=said):
        list(lacking.look(of(prospect, releases.clean(tmp_path / "model"), model_type=kind)))


@pytest.mark.parametrize("changed", [{"num_hidden_layers": "many"}, {"model_type": GONE, "architectures": GONE}])
def test_what_transformers_cannot_tell_is_left_to_the_stages(changed: dict[str, Any], prospect: MakeProspect, tmp_path: Path) -> None:
    assert list(lacking.look(without(of(prospect, releases.clean(tmp_path / "model"), **changed), LAYER))) == []


def test_nothing_is_looked_at_of_which_only_sizes_are_known(prospect: MakeProspect) -> None:
    assert list(lacking.look(replace(prospect(), stored={}, config={}))) == []


def test_a_process_that_is_stopped_says_nothing_of_the_release(prospect: MakeProspect, tmp_path: Path) -> None:
    known = without(of(prospect, releases.clean(tmp_path / "model")), LAYER)
    assert list(lacking.look(replace(known, settings=known.settings.with_(stage_minutes=1e-6)))) == []
