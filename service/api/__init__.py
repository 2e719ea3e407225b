"""The HTTP side of the service: a small REST API with bearer tokens, and the place where the Hub's webhooks arrive."""

from importlib.metadata import PackageNotFoundError, version

from fastapi import FastAPI

from config.settings import Settings
from config.wire import API
from service.api import (
    describing,
    errors,
    files,
    findings,
    live,
    metrics,
    publications,
    rebuilding,
    recipes,
    reference,
    releases,
    runs,
    steering,
    streams,
    trail,
    watch,
    webhook,
)
from service.api.attempts import Attempts
from service.api.behind import Behind
from service.api.guard import Guard
from service.api.hinting import Hinting
from service.store import Store


def create_app(store: Store, settings: Settings) -> FastAPI:
    """The application on an open store; the caller closes the store."""
    app = FastAPI(
        title="Sluice",
        version=_version(),
        description="Runs that repair, quantize, measure and publish model releases. Make a token with `sluice token create NAME`.",
        openapi_url=f"{API}/openapi.json",
        docs_url=None,  # its page would load a script from elsewhere
        redoc_url=None,
    )
    app.state.store = store
    app.state.settings = settings
    app.state.named = False  # whoever has no token, or one for some namespaces, learns nothing of what is watched
    app.state.metrics = metrics.registry(store, settings)
    app.state.attempts = Attempts()
    app.state.hinting = Hinting(store, settings)
    for room in (runs.public, live.router, runs.protected, runs.acting, steering.acting, findings.protected, files.protected, streams.protected):
        app.include_router(room, prefix=API)
    for room in (releases.protected, publications.protected, publications.acting, watch.router, watch.acting, recipes.protected, trail.protected):
        app.include_router(room, prefix=API)
    app.include_router(metrics.protected)
    app.include_router(webhook.router)
    app.include_router(rebuilding.router)
    app.include_router(reference.router, prefix=API)
    describing.install(app)
    app.add_middleware(Guard)
    app.add_middleware(Behind, prefix=settings.proxy_prefix, trusted=settings.trusted_proxies)
    errors.install(app)
    return app


def create_health_app(store: Store, settings: Settings) -> FastAPI:
    """What needs no token and nothing else, for a listener that no load on the API can reach."""
    app = FastAPI(title="Sluice", version=_version(), openapi_url=None)
    app.state.store = store
    app.state.settings = settings
    app.state.named = True
    app.state.metrics = metrics.registry(store, settings)
    app.include_router(runs.public, prefix=API)
    app.include_router(live.router, prefix=API)
    app.include_router(metrics.open_to_all)
    app.add_middleware(Guard)
    errors.install(app)
    return app


def _version() -> str:
    try:
        return version("sluice")
    except PackageNotFoundError:
        return "0"  # run from a checkout that was never installed
