"""Publishing again what was published: restores what somebody changed on the Hub, and changes nothing else."""

from dataclasses import replace

from huggingface_hub import HfApi

from config.settings import Settings
from service.release import recipes
from service.runs.steering import Actor
from service.store import PublicationRecord, RunRecord, Store, order_of


def republish(store: Store, settings: Settings, api: HfApi, publication: PublicationRecord, actor: Actor) -> RunRecord:
    """Queue the publication's run again. Going back on purpose is another decision: where something newer is published by then, that stays.

    Raises ConfigurationError, HubError of a run that an older version queued, whose recipe can no longer be had: it stays done.
    """
    run = store.run(publication.run)
    if store.recipe(run.recipe_digest) is None:
        recipes.of_run(store, run, settings, api)
    queued, _ = store.enqueue(replace(order_of(run, trigger="republish"), rollback=None), again=True)
    store.audit(actor.source, f"publication/{publication.id}", "republish", {"run": queued.id, **actor.details})
    return queued
