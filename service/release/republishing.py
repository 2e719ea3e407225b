"""Publishing again what a run published before."""

from dataclasses import replace

from config.settings import Settings
from service.hubclient import connect
from service.release import recipes
from service.runs.steering import Actor
from service.store import RunRecord, Store, order_of


def republish(store: Store, settings: Settings, publication: int, actor: Actor) -> RunRecord:
    """Queue the publication's run again. What takes the place of a newer release is an action of its own, see `rollback`.

    Raises UnknownPublication; of a run that an older version queued, which kept no recipes, ConfigurationError when its recipe says otherwise by now.
    """
    run = store.run(store.publication(publication).run)
    if store.recipe(run.recipe_digest) is None:  # a run that is done stays so where it could not be carried out again
        recipes.of_run(store, run, settings, connect(settings))
    again, _ = store.enqueue(replace(order_of(run, trigger="republish"), rollback=None), again=True)
    store.audit(actor.source, f"publication/{publication}", "republish", {"run": again.id, **actor.details})
    return again
