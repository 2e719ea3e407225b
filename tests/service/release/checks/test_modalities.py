"""What of images and sound GGUF files will read is said before anything is built."""

from collections.abc import Callable

from config.recipe import Recipe
from service.release.checks import Remark, modalities
from service.release.prospect import Prospect

SEEING = {"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "vision_config": {"hidden_size": 32}}


def test_a_model_that_reads_images_is_spoken_of_where_gguf_files_are_wanted(prospect: Callable[..., Prospect], recipe: Callable[..., Recipe]) -> None:
    (said,) = modalities.look(prospect(config=SEEING))
    assert isinstance(said, Remark)
    assert said.startswith("The model reads images too: mmproj-BF16, mmproj-F16, mmproj-Q8_0 will be made for llama.cpp")
    assert list(modalities.look(prospect(config=SEEING, recipe=recipe(variants={"gguf": [], "sixteen_bit": True})))) == []
    assert list(modalities.look(prospect())) == []


def test_what_no_projector_can_be_made_of_is_said_with_the_reason(prospect: Callable[..., Prospect], recipe: Callable[..., Recipe]) -> None:
    (said,) = modalities.look(prospect(config=SEEING | {"architectures": ["UnheardOf"]}))
    assert said.startswith("The model reads images too. GGUF files hold its text part alone and no projector (mmproj) for images goes with them: the converter")
    assert "knows none for the architecture UnheardOf" in said
    llava = {"architectures": ["LlavaForConditionalGeneration"], "model_type": "llava", "vision_config": {"model_type": "clip_vision_model"}}
    (said,) = modalities.look(prospect(config=llava))
    assert "knows no vision tower of the type clip_vision_model" in said
    (said,) = modalities.look(prospect(config=llava | {"vision_config": {"model_type": "pixtral"}}))
    assert "will be made" in said
    own = {"architectures": ["InternVLForConditionalGeneration"], "model_type": "internvl", "vision_config": {"architectures": ["InternVisionModel"]}}
    (said,) = modalities.look(prospect(config=own))
    assert "will be made" in said
    (said,) = modalities.look(prospect(config=SEEING, recipe=recipe(variants={"gguf": ["Q4_0"], "mmproj": []})))
    assert "the recipe wants none" in said
    both = [str(said) for said in modalities.look(prospect(config=SEEING | {"audio_config": {}}))]
    assert "will be made" in both[0]
    assert both[1].startswith("The model reads sound too.")
