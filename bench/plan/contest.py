"""Lets every way of choosing types fill the bytes of each stock mix of one model, and measures the files."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.plan import peers
from bench.plan.measure import Case, Log, Row, Used, measure
from bench.plan.model import Prepared
from builders import quantize
from builders.plan.solve import solve
from builders.sensitivity.table import Mix, Sensitivity
from config.plans import Rules

SIZES = ("IQ2_XXS", "IQ2_M", "IQ3_XXS", "Q2_K", "Q3_K_S", "Q3_K_M", "IQ4_XS", "Q4_K_S", "Q4_K_M", "Q5_K_M", "Q6_K")
PEERS = ("error", "probes", "greedy", "random", "uniform")
SEEDS = 3


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One model at the bytes of one stock mix, on one text. KLD in nats."""

    model: str
    size: str
    text: str
    bytes: int  # of the stock file
    bits: float  # of the whole stock file, per parameter
    stock: float
    planned: float
    rounded: float  # the planned mix, rounded anew: what is published
    rounded_error: float  # standard error of `rounded`
    same_top: tuple[float, float]  # stock, rounded
    predicted: float | None  # None on text of another kind than the calibration's
    peers: Mapping[str, float]
    off: Mapping[str, float]  # by how much each file is larger than the stock file, as a share

    @property
    def ratio(self) -> float:
        """What is published over stock."""
        return self.rounded / self.stock

    @property
    def best(self) -> tuple[str, float] | None:
        """The best peer and its KLD."""
        return min(self.peers.items(), key=lambda item: item[1], default=None)


@dataclass(frozen=True, kw_only=True)
class Contest:
    """All outcomes of one model, and what choosing cost."""

    outcomes: tuple[Outcome, ...]
    planning: Used  # of all sizes together
    sizes: int
    probes: int  # measured for the greedy peer
    probing: float  # seconds of those probes
    weighing: float  # seconds of the weighted errors, all tensors in all types


def contend(prepared: Prepared, sizes: Sequence[str], wanted: Sequence[str], log: Log) -> Contest:
    """Choose, build and measure everything for one model."""
    table, source = prepared.sensitivity, prepared.source
    capacities = {size: capacity(prepared, size) for size in sizes}
    mixes: dict[tuple[str, str], list[Mix]] = {}
    predicted: dict[str, float] = {}
    planning = Used(seconds=0.0, cpu_seconds=0.0)
    for size in sizes:
        mix, done = prepared.planned(size)
        mixes[size, "planned"] = [mix]
        predicted[size] = float(done.result["predicted"]["mean"])
        planning = Used(seconds=planning.seconds + done.used.seconds, cpu_seconds=planning.cpu_seconds + done.used.cpu_seconds)
    started = time.perf_counter()
    if "error" in wanted:
        errors = peers.weighted_errors(source.gguf, prepared.importances, table, threads=prepared.threads)
        mixes |= {(size, "error"): [peers.by_error(errors, capacities[size])] for size in sizes}
    weighing = time.perf_counter() - started
    if "probes" in wanted:
        probed_table = Sensitivity.load(prepared.probed().folder)
        mixes |= {(size, "probes"): [solve(probed_table, capacity=capacities[size], rules=Rules())] for size in sizes}
    probed: list[Row] = []
    if "greedy" in wanted:
        divergences, probed = probes(prepared, log)
        mixes |= {(size, "greedy"): [peers.greedy(table, divergences, capacities[size])] for size in sizes}
    if "random" in wanted:
        mixes |= {(size, "random"): [peers.at_random(table, capacities[size], seed) for seed in range(SEEDS)] for size in sizes}
    uniform = [found for type in peers.UNIFORM if (found := peers.uniform(table, type))] if "uniform" in wanted else []
    cases = [Case(stock=size) for size in sizes] + [case(peer, mix) for (_, peer), many in mixes.items() for mix in many] + [Case(mix=mix) for mix in uniform]
    cases += [case("planned", mixes[size, "planned"][0], rounded=True) for size in sizes]
    measure(source, cases, log, threads=prepared.threads)
    return Contest(
        outcomes=tuple(outcome(prepared, size, text.name, predicted[size], mixes, uniform, log) for text in source.texts for size in sizes),
        planning=planning,
        sizes=len(sizes),
        probes=len(probed),
        probing=sum(row["building"] + row["scoring"] for row in probed),
        weighing=weighing,
    )


def case(way: str, mix: Mix, *, rounded: bool = False) -> Case:
    """The file of a mix; the planned one is written by llama-quantize, as a release is."""
    return Case(mix=mix, by_tool=way == "planned", rounded=rounded)


def capacity(prepared: Prepared, size: str) -> int:
    """Bytes that the stock mix gives to the tensors that are planned."""
    stock = quantize.planned(prepared.source.gguf, size, prepared.source.imatrix)
    return sum(stock[tensor.name].bytes for tensor in prepared.sensitivity.tensors)


def probes(prepared: Prepared, log: Log) -> tuple[dict[tuple[str, str], float], list[Row]]:
    """The measured KLD of every group in every probed type, on calibration text."""
    table = prepared.sensitivity
    allowed = {tensor.name: table.allowed(tensor) for tensor in table.tensors}
    wanted = [(group, type) for group in peers.groups(table.tensors) for type in peers.PROBED if all(type in allowed[name] for name in group.tensors)]
    rows = measure(prepared.calibration, [Case(mix=peers.probe(table, group, type)) for group, type in wanted], log, threads=prepared.threads)
    found = {(group.name, type): float(row["calibration.kld"]) for (group, type), row in zip(wanted, rows, strict=True)}
    return found, rows


def outcome(
    prepared: Prepared, size: str, text: str, predicted: float, mixes: Mapping[tuple[str, str], list[Mix]], uniform: Sequence[Mix], log: Log
) -> Outcome:
    """What came out at one size on one text."""
    source = prepared.source

    def row(case: Case) -> Row:
        return log.rows[case.key(source)]

    stock, planned = row(Case(stock=size)), row(case("planned", mixes[size, "planned"][0]))
    rounded = row(case("planned", mixes[size, "planned"][0], rounded=True))
    found = {peer: [row(Case(mix=mix)) for mix in many] for (of, peer), many in mixes.items() if of == size and peer != "planned"}
    values = {peer: sum(float(item[f"{text}.kld"]) for item in rows) / len(rows) for peer, rows in found.items()}
    points = [(int(item["bytes"]), float(item[f"{text}.kld"])) for item in (row(Case(mix=mix)) for mix in uniform)]
    if (between := peers.between(points, int(stock["bytes"]))) is not None:
        values["uniform"] = between
    off = {peer: max((item["bytes"] / stock["bytes"] - 1 for item in rows), key=abs) for peer, rows in [*found.items(), ("planned", [planned])]}
    return Outcome(
        model=prepared.name,
        size=size,
        text=text,
        bytes=int(stock["bytes"]),
        bits=8 * stock["bytes"] / prepared.parameters,
        stock=float(stock[f"{text}.kld"]),
        planned=float(planned[f"{text}.kld"]),
        rounded=float(rounded[f"{text}.kld"]),
        rounded_error=float(rounded[f"{text}.stderr"]),
        same_top=(float(stock[f"{text}.same_top"]), float(rounded[f"{text}.same_top"])),
        predicted=predicted if text == source.texts[0].name else None,
        peers=values,
        off=off,
    )
