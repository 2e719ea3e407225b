"""What people write into a published card, on the embedded Hub: it outlives the next publication, and brings about none."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, ModelCard

from config.errors import PublishConflict
from config.facts import Facts
from publishers import manifest as manifests
from publishers.hub import CARD_BYTES, Known, Plan, Publication, PublishFile, inventory, publish
from publishers.naming import CARD, MANIFEST
from publishers.readme import render
from tests.publishers.conftest import REPO, MakeCard, MakePlan, commits


@pytest.fixture
def planned(make_plan: MakePlan, make_card: MakeCard) -> MakePlan:
    """A plan with a real card, of which any field can be replaced."""

    def plan(**changes: object) -> Plan:
        made = make_plan()
        card = PublishFile.from_bytes(CARD, render(make_card(**changes)).encode())
        files = (card, *(file for file in made.files if file.path != CARD))
        return replace(made, files=files, manifest=made.manifest.model_copy(update={"files": inventory(files)}))

    return plan


def read(api: HfApi, path: str = CARD) -> str:
    return Path(api.hf_hub_download(REPO, path)).read_text()


def edit(api: HfApi, change: Callable[[str], str]) -> str:
    """A person edits the card on the Hub's page; the text that is there now."""
    text = change(read(api))
    api.create_commit(REPO, [CommitOperationAdd(CARD, text.encode())], commit_message="Edit the card")
    return text


def thanked(text: str) -> str:
    return text.replace("<!-- sluice:begin use", "We like this one for *poems*.\n\n<!-- sluice:begin use") + "\nThanks to Ada.\n"


def test_a_person_s_text_alone_makes_no_commit(api: HfApi, planned: MakePlan) -> None:
    first = publish(api, planned())
    text, before = edit(api, thanked), commits(api)
    again = publish(api, planned(), Known(previously=first.revision))
    assert (again.changed, again.remark, read(api), commits(api)) == (False, None, text, before)


def test_a_person_s_text_outlives_another_card(api: HfApi, planned: MakePlan) -> None:
    first = publish(api, planned())
    text = edit(api, lambda text: thanked(text).replace("license: apache-2.0", "license: apache-2.0\nthumbnail: https://acme.example/x.png"))
    plan = planned(quick=True, facts=Facts(license="mit"))
    done = publish(api, plan, Known(previously=first.revision))
    assert (done.changed, done.remark) == (True, None)
    now = read(api)
    assert "> **Quick measurements.**" in now
    assert "We like this one for *poems*.\n\n<!-- sluice:begin use" in now
    assert now.endswith("<!-- sluice:end source -->\n\nThanks to Ada.\n")
    assert "Quick" not in text
    data = ModelCard(now).data
    assert (data.license, data.thumbnail) == ("mit", "https://acme.example/x.png")
    assert not publish(api, plan, Known(previously=done.revision)).changed
    manifest = manifests.read(read(api, MANIFEST).encode(), where="there")
    assert manifest.files[CARD].sha256 == next(file.sha256 for file in plan.files if file.path == CARD), "the manifest speaks of Sluice's part"


def test_an_edit_within_a_section_is_taken_back(api: HfApi, planned: MakePlan) -> None:
    first = publish(api, planned())
    edit(api, lambda text: text.replace("0.00767", "0.00001"))
    assert publish(api, planned(), Known(previously=first.revision)).changed
    assert read(api) == render_of(planned())


def test_damaged_markers_are_told_and_nothing_of_theirs_is_lost(api: HfApi, planned: MakePlan, caplog: pytest.LogCaptureFixture) -> None:
    first = publish(api, planned())
    edit(api, lambda text: thanked(text).replace("<!-- sluice:end figures -->\n", ""))
    with caplog.at_level(logging.WARNING):
        done = publish(api, planned(), Known(previously=first.revision))
    assert done.remark is not None
    assert done.remark.startswith("The markers of Sluice's sections in README.md were damaged: source begins within figures.")
    assert any("were damaged" in record.message for record in caplog.records)
    text = read(api)
    assert "We like this one for *poems*." in text
    assert "Thanks to Ada." in text
    assert text.count("0.00767 ± 0.00020") == 1, "Sluice's own figures do not stand there twice"
    again = publish(api, planned(), Known(previously=done.revision))
    assert (again.changed, again.remark) == (False, None)


def test_a_card_that_an_older_version_wrote_is_replaced(api: HfApi, planned: MakePlan, make_plan: MakePlan) -> None:
    old = publish(api, make_plan())
    done = publish(api, planned(), Known(previously=old.revision))
    assert (done.remark, read(api)) == (None, render_of(planned()))


def test_a_person_who_writes_while_files_are_uploaded_is_not_overwritten(api: HfApi, planned: MakePlan, monkeypatch: pytest.MonkeyPatch) -> None:
    first = publish(api, planned())
    commit, written = HfApi.create_commit, []

    def meanwhile(self: HfApi, *arguments: object, **named: object) -> object:
        if not written:
            written.append(True)
            edit(HfApi(endpoint=api.endpoint, token=api.token), thanked)
        return commit(self, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(HfApi, "create_commit", meanwhile)
    done: Publication = publish(api, planned(quick=True), Known(previously=first.revision))
    assert done.changed
    assert "Thanks to Ada." in read(api)
    assert "Quick" in read(api)


def test_a_card_that_was_deleted_is_written_again(api: HfApi, planned: MakePlan) -> None:
    first = publish(api, planned())
    api.create_commit(REPO, [CommitOperationDelete(CARD)], commit_message="Delete the card")
    assert publish(api, planned(), Known(previously=first.revision)).changed
    assert read(api) == render_of(planned())


def test_what_is_too_large_to_be_a_card_is_left_alone(api: HfApi, planned: MakePlan) -> None:
    first = publish(api, planned())
    edit(api, lambda text: text + "x" * CARD_BYTES)
    with pytest.raises(PublishConflict, match="more than a card that people wrote into. Nothing was overwritten"):
        publish(api, planned(), Known(previously=first.revision))


def render_of(plan: Plan) -> str:
    source = next(file.source for file in plan.files if file.path == CARD)
    assert isinstance(source, bytes)
    return source.decode()
