"""That GGUF files go without what a model reads beside text is said before anything is built."""

from collections.abc import Callable

from config.recipe import Recipe
from service.release.checks import Remark, modalities
from service.release.prospect import Prospect


def test_a_model_that_reads_images_is_spoken_of_where_gguf_files_are_wanted(prospect: Callable[..., Prospect], recipe: Callable[..., Recipe]) -> None:
    config = {"model_type": "gemma3", "vision_config": {"hidden_size": 32}}
    (said,) = modalities.look(prospect(config=config))
    assert isinstance(said, Remark)
    assert said.startswith("The model reads images too. GGUF files hold its text part alone and no projector (mmproj) goes with them")
    assert list(modalities.look(prospect(config=config, recipe=recipe(variants={"gguf": [], "sixteen_bit": True})))) == []
    assert list(modalities.look(prospect())) == []
