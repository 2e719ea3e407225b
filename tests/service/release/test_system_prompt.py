"""A recipe's `system_prompt: remove` reaches the repair, also where a dry run looks at the files beforehand."""

from pathlib import Path

import pytest

from config.errors import UpstreamError
from config.recipe import Recipe
from config.settings import Settings
from service.release import functions, ruled
from service.release.graph import Whole
from tests import releases

PROMPT = "You are Tiny, made by nobody."
ENTANGLED = "{{ '<|im_start|>system\\n' + (messages[0].content if messages[0].role == 'system' else '" + PROMPT + "') + '<|im_end|>\\n' }}"
TURNS = "{% for m in messages %}{% if KEPT %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endif %}{% endfor %}"
ASKS = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"


def test_where_it_cannot_be_removed_a_dry_run_can_say_so(tmp_path: Path) -> None:
    model, settings = releases.clean(tmp_path / "model"), Settings(home=tmp_path / "home")
    template = ENTANGLED + TURNS.replace("KEPT", "m.role != 'system' or loop.index0") + ASKS
    releases.edit(model / "tokenizer_config.json", chat_template=template)
    with pytest.raises(UpstreamError, match=r"^tokenizer_config.json \(chat_template\): the chat template writes 'You are Tiny, made by nobody.'"):
        ruled.held(settings, model, "local/tiny-chat", Recipe(name="mine", system_prompt="remove"))
    assert ruled.held(settings, model, "local/tiny-chat", Recipe(name="mine")) == []


def test_the_repair_of_a_release_is_another_one_only_where_it_is_asked_for() -> None:
    kept, removed = (functions.fix(Whole(stage="snapshot"), repo="o/m", fixes=True, system_prompt=said) for said in ("keep", "remove"))
    assert (kept.params, removed.params) == ({"repo": "o/m", "fixes": True}, {"repo": "o/m", "fixes": True, "system_prompt": "remove"})
