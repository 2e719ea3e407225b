"""Endpoints for recipes: those that are known by name, whether a text is one, what a changed one would build anew, and on which data one rests."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Path
from pydantic import BaseModel, ConfigDict, Field

from config.written import named_data
from service.api.access import Number, TheSettings, TheStore, caller, visible_run
from service.api.errors import ApiError, problems
from service.api.outward import asking_the_hub
from service.api.tagging import Tagged
from service.hubclient import connect
from service.release import library
from service.release.checks.watch import RECIPE_NAME
from service.release.inventory import DataView, inventory
from service.store import TokenRecord

protected = APIRouter(tags=["recipes"], route_class=Tagged, dependencies=[Depends(caller)], responses=problems(401, 422, 429))

RecipeName = Annotated[str, Path(pattern=RECIPE_NAME, max_length=100, description="A recipe's name, as the list of recipes tells it.")]
Text = Annotated[
    str,
    Field(
        max_length=100_000,
        pattern=r"^[^\x00]*$",
        description="A recipe, as YAML.",
        examples=["name: small\nvariants: {gguf: [Q4_K_M]}\n"],
    ),
]


class CheckRequest(BaseModel):
    """A text that may be a recipe."""

    model_config = ConfigDict(extra="forbid")

    text: Text


class PreviewRequest(BaseModel):
    """A recipe, and the run whose release it is tried on. Give a text or a name."""

    model_config = ConfigDict(extra="forbid")

    run: Number = Field(examples=[12])
    text: Text | None = None
    name: str | None = Field(default=None, pattern=RECIPE_NAME, max_length=100, examples=["default"])


@protected.get("/recipes", summary="The recipes that are known by name")
def list_recipes() -> list[library.RecipeHead]:
    """With what each builds, and why it cannot be used where that is so."""
    return library.known()


@protected.get("/recipes/{name}", summary="A recipe", responses=problems(404))
def get_known_recipe(name: RecipeName) -> library.RecipeView:
    """Its text, and all that it comes to."""
    return library.known_recipe(name)


@protected.get("/recipes/{name}/data", summary="What a recipe is calibrated and measured on", responses=problems(404, 502, 503))
def get_data(name: RecipeName, settings: TheSettings) -> list[DataView]:
    """Each text and the questions, with commit, size and licence; the Hub is asked about what is not here."""
    library.known_recipe(name)
    with asking_the_hub():
        return inventory(settings, connect(settings), named_data(name))


@protected.post("/recipes/validate", summary="Whether a text is a recipe", responses=problems(400, 408, 413))
def check_recipe(given: CheckRequest) -> library.RecipeCheck:
    """Everything that is wrong with it, each with its place, or the recipe with all that it leaves out. Nothing is kept."""
    return library.checked(given.text)


@protected.post("/recipes/preview", summary="What a recipe would build anew for the release of a run", responses=problems(400, 404, 408, 409, 413, 502, 503))
def preview_recipe(given: PreviewRequest, store: TheStore, settings: TheSettings, token: Annotated[TokenRecord, Depends(caller)]) -> library.RecipePreview:
    """Stage by stage, whether its product is kept already. Nothing is made, queued or fetched.

    404: no such run or recipe. 409: the release cannot be used any more. 422: it is no recipe, or names files of the service's machine that the run did not.
    """
    if (given.text is None) == (given.name is None):
        raise ApiError(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid", "Give `text` or `name`, and one of them.")
    run = visible_run(given.run, store, token)
    if given.text is not None:
        written = library.from_text(given.text)
        if foreign := next(library.foreign_data(written, store, run), None):
            message = (
                f"The recipe names {foreign}, a file of the service's machine that the recipe of run {run.id} does not name. Over the network that is refused."
            )
            raise ApiError(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid", message)
    else:
        written = library.written(str(given.name))
    with asking_the_hub():
        return library.preview(store, settings, connect(settings), run, written)
