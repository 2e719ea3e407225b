"""The dashboard: pages for people who watch and steer releases, rendered here, with forms that do without a script and a script that makes them live."""

from fastapi import FastAPI

from config.settings import Settings
from service.dashboard import deeds, faults, live, pages, signing
from service.store import Store

HOME = "/ui"


def add_dashboard(app: FastAPI, store: Store, settings: Settings) -> None:
    """Put the dashboard under `/ui` of the API's application, whose wrong tokens it counts with."""
    inside = FastAPI(title="Sluice", openapi_url=None, docs_url=None, redoc_url=None)
    inside.state.store = store
    inside.state.settings = settings
    inside.state.attempts = app.state.attempts
    inside.state.outside = app
    for router in (signing.router, pages.router, live.router, deeds.router):
        inside.include_router(router)
    faults.install(inside)
    app.mount(HOME, inside)
    app.get("/", include_in_schema=False)(pages.to_dashboard)
