"""`/metrics`: what the records come to and how this process does, in the form that Prometheus reads.

Counts come from the database, so that they outlive the process and are the same whichever of several services is asked. A run that is carried out again, or
records that are thrown away with old runs, lower them, which Prometheus takes for a restart.
"""

import shutil
import threading
import time
from collections.abc import Iterator, Mapping

from fastapi import APIRouter, Depends, Request, Response
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from config.settings import Settings
from service.api.access import everybodys
from service.api.errors import problems
from service.hubclient.traffic import traffic
from service.machine.folders import existing
from service.store import Store
from service.store.counting import Counts
from service.store.database import now

KEPT = 60.0  # seconds for which counts are not counted again: over thousands of runs that takes a second or two

open_to_all = APIRouter(tags=["service"])
protected = APIRouter(tags=["service"], dependencies=[Depends(everybodys)], responses=problems(401, 403, 429))


class Figures(Collector):
    """What is counted in the database and measured on the disk at the moment that somebody asks; the database is asked once a minute at most."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store, self._settings = store, settings
        self._lock = threading.Lock()
        self._counted: tuple[float, Counts] | None = None

    def collect(self) -> Iterator[Metric]:
        """All families."""
        counts = self._counts()
        runs = GaugeMetricFamily("sluice_runs", "Runs by state.", labels=("state",))
        yield _filled(runs, {(state,): count for state, count in counts.runs.items()})
        waiting = 0.0 if counts.waiting_since is None else (now() - counts.waiting_since).total_seconds()
        yield GaugeMetricFamily("sluice_queue_age_seconds", "How long the run that has waited longest has been queued; 0 when none waits.", max(0.0, waiting))
        yield GaugeMetricFamily("sluice_hints", "Repos that may have changed and are still to be looked at.", counts.hints)
        stages = CounterMetricFamily("sluice_stages", "Steps of runs that were begun or reused, by how they ended.", labels=("stage", "state"))
        yield _filled(stages, counts.stages)
        taken = CounterMetricFamily("sluice_stage_seconds", "Seconds that steps of runs took.", labels=("stage",))
        yield _filled(taken, {(name,): seconds for name, seconds in counts.stage_seconds.items()})
        variants = CounterMetricFamily("sluice_variants", "Variants of runs, by how they came out.", labels=("outcome",))
        yield _filled(variants, {(name,): count for name, count in counts.variants.items()})
        gates = CounterMetricFamily(
            "sluice_gate_results", "Gates applied to variants, by how they came out and why they did not pass.", labels=("gate", "outcome", "reason")
        )
        yield _filled(gates, counts.gates)
        yield CounterMetricFamily("sluice_publications", "Publications, those that found nothing to change among them.", counts.publications)
        if counts.published is not None:
            yield GaugeMetricFamily("sluice_last_published_timestamp_seconds", "When a publication last changed something.", counts.published.timestamp())
        listings = self._store.listings()
        yield GaugeMetricFamily("sluice_watched_owners", "Owners of repos that polls list.", len(listings))
        failing = sum(item.error is not None for item in listings)
        yield GaugeMetricFamily("sluice_unlisted_owners", "Owners whose repos could not be listed at the last poll.", failing)
        calls = CounterMetricFamily("sluice_hub_calls", "Requests of this process to Hubs, each try, by status; none: no answer.", labels=("method", "status"))
        yield _filled(calls, traffic.calls())
        moved = CounterMetricFamily("sluice_hub_bytes", "Bytes between this process and Hubs, without those of Xet's client.", labels=("direction",))
        yield _filled(moved, {(direction,): count for direction, count in traffic.bytes().items()})
        disk = shutil.disk_usage(existing(self._settings.folder))
        yield GaugeMetricFamily("sluice_disk_free_bytes", "Bytes that are free where stages leave their files.", disk.free)
        yield GaugeMetricFamily("sluice_disk_bytes", "Bytes of that file system.", disk.total)

    def _counts(self) -> Counts:
        with self._lock:
            if self._counted is None or time.monotonic() - self._counted[0] > KEPT:
                self._counted = (time.monotonic(), self._store.counts())
            return self._counted[1]


def registry(store: Store, settings: Settings) -> CollectorRegistry:
    """All that an application tells: one of its own for each, as each has its own store."""
    made = CollectorRegistry()
    made.register(Figures(store, settings))
    ProcessCollector(registry=made)
    return made


@open_to_all.get("/metrics", response_class=Response, summary="Figures for Prometheus", include_in_schema=False)
@protected.get("/metrics", response_class=Response, summary="Figures for Prometheus", responses={200: {"content": {CONTENT_TYPE_LATEST: {}}}})
def metrics(request: Request) -> Response:
    """Runs by state, the queue's age, seconds of stages, gates by outcome and reason, publications, disk, and this process's own time and memory.

    Not for a token of some namespaces: figures are of all.
    """
    return Response(generate_latest(request.app.state.metrics), media_type=CONTENT_TYPE_LATEST)


def _filled(family: GaugeMetricFamily | CounterMetricFamily, values: Mapping[tuple[str, ...], float]) -> Metric:
    """The family with a figure for each combination of labels."""
    for labels, value in sorted(values.items()):
        family.add_metric(labels, value)
    return family
