"""The runner of all benches: repeats, one loop and one Kafka for all of them, what stays over repeats, errors, the report.

A bench is a function from (lab, repeat) and its own options to the figures of one run:

    def measure(lab: Lab, repeat: int, *, jobs: int) -> Figures:
        cluster = lab.kept(lab.cluster, "mine")         # started once, or `with lab.cluster("mine") as cluster:` for each run
        return lab.run(ask(cluster.url, jobs))          # a coroutine, on the one loop

    BENCH = Bench(measure, "the node is simulated", budgets=(...), options=(click.Option(["--jobs"], default=100),), quick={"jobs": 1})
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Final, ParamSpec, Self, TypeVar

import click
import uvloop
from click.core import ParameterSource

from infra.cli.exits import Program
from infra.lab.bench import machine
from infra.lab.bench.figures import Budget, Figures
from infra.lab.bench.report import RECORDS, Report, Table
from infra.native.cluster import LocalCluster
from infra.native.kafka import Kafka
from infra.native.paths import StackHome
from infra.native.processes import started
from infra.native.settings import NativeSettings
from shared.errors import TuttiError
from shared.services import NAMES

IN_PROCESS: Final[Mapping[str, str]] = {
    "TUTTI_WORKER__BACKEND": "in_process",
    "TUTTI_WORKER__MODELS": "in-process",
    "TUTTI_WORKER__SLOTS": "64",
}
"""A node without a model: its answers are simulated, at once. For `nodes` of a cluster."""
NO_SERVICE: Final = dict.fromkeys(NAMES, 0)
"""For `copies` of a cluster, with those that it shall have."""
BROKER_SESSION_MS: Final = 30_000
"""Load must not make the broker's own controller take it for dead."""
P = ParamSpec("P")
T = TypeVar("T")
_numbers = count(1)


class Unmeasured(Exception):
    """Something was refused, lost, answered twice or did not come: figures would mean nothing."""


def option(name: str, default: Any = None, about: str = "", **kind: Any) -> click.Option:
    """Of a bench's own."""
    return click.Option([f"--{name}"], default=default, help=about, **kind)


@dataclass(frozen=True, slots=True)
class Bench:
    """`measure` is described by its docstring. `quick`: options of a run that only shows that it works; `needs_kafka`: it can be given one;
    `derived`: what follows from medians; `also`: further lines of all runs.
    """

    measure: Callable[..., Figures]
    simulated: str
    budgets: Sequence[Budget] = ()
    options: Sequence[click.Option] = ()
    quick: Mapping[str, Any] = field(default_factory=dict)
    repeats: int = 3
    strict: bool = True
    needs_kafka: bool = True
    tables: Sequence[Table] = ()
    derived: Callable[[Figures], Figures] = lambda _: {}
    also: Callable[[Sequence[Figures]], Iterable[str]] = lambda _: ()


@dataclass(slots=True, eq=False)
class Lab:
    """What a bench stands on, for all its repeats. What it keeps ends with it, the last one first."""

    servers_given: str | None = None
    repeats: int = 1
    quick: bool = False
    simulated: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    """What figures depend on besides the command's own options."""
    details: dict[str, Any] = field(default_factory=dict)
    """What is no figure, for the JSON alone."""
    wrong: list[str] = field(default_factory=list)
    """Why it failed, whatever the figures are."""
    _stack: ExitStack = field(default_factory=ExitStack)
    _kept: list[tuple[Any, Any]] = field(default_factory=list)
    """(how it was asked for, it); compared, not hashed: a fleet holds dicts."""

    def kept(self, start: Callable[P, AbstractContextManager[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `start` gives, entered when it is first asked for with these arguments; later the same."""
        wanted = (start, args, kwargs)
        for asked, kept in self._kept:
            if asked == wanted:
                known: T = kept
                return known
        found = self._stack.enter_context(start(*args, **kwargs))
        self._kept.append((wanted, found))
        return found

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """On the loop that all repeats share; tasks that it leaves go on in the next call."""
        return self.kept(_loop).run(work)

    @property
    def servers(self) -> str:
        """Of the Kafka that was given, else of one for all repeats. Raises NativeError kinds."""
        return self.servers_given or self.broker.servers

    @property
    def broker(self) -> Kafka:
        """The one for all repeats. Raises NativeError kinds."""
        return self.kept(own_broker)

    @property
    def home(self) -> StackHome:
        """A directory that is removed at the end."""
        return StackHome(self.kept(_directory))

    def cluster(self, name: str, **options: Any) -> AbstractContextManager[LocalCluster]:
        """Of real processes, with fields of LocalCluster, below a prefix that nobody else has. Raises NativeError kinds."""
        return cluster_on(self.servers, name, **options)

    def detail(self, name: str, of_run: Any) -> None:
        """Adds to a list of the JSON."""
        self.details.setdefault(name, []).append(of_run)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()


def _loop() -> AbstractContextManager[asyncio.Runner]:
    return asyncio.Runner(loop_factory=uvloop.new_event_loop)


@contextmanager
def _directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="tutti-bench-") as made:
        yield Path(made)


@contextmanager
def own_broker() -> Iterator[Kafka]:
    """A broker on free ports that ends with this. Raises NativeError kinds."""
    with (
        tempfile.TemporaryDirectory(prefix="tutti-kafka-") as made,
        started(Kafka.beside(StackHome(Path(made)), NativeSettings().cache_directory, session_timeout_ms=BROKER_SESSION_MS)) as broker,
    ):
        yield broker


@contextmanager
def cluster_on(servers: str, name: str, **options: Any) -> Iterator[LocalCluster]:
    """As `Lab.cluster`."""
    options["environment"] = {"TUTTI_LOG_LEVEL": "warning", **options.get("environment", {})}
    namespace = f"{name}-{os.getpid()}-{next(_numbers)}"
    with (
        tempfile.TemporaryDirectory(prefix=f"tutti-{name}-") as made,
        LocalCluster(servers, namespace, Path(made), **options) as cluster,
    ):
        yield cluster


def command(name: str, bench: Bench) -> click.Command:
    """The bench's own options, and those that all have."""
    file = click.Path(path_type=Path)
    common = [
        option("repeats", bench.repeats, "Runs; medians of them.", type=click.IntRange(1, 1_000)),
        click.Option(["--quick"], is_flag=True, help="Small, once: does it run, is nothing lost."),
        *([option("servers", None, "Use this Kafka instead of starting one.", metavar="HOST:PORT")] if bench.needs_kafka else []),
        click.Option(["--json", "json_file"], type=file, help="Write everything here."),
        option("compare", None, "An earlier --json file, besides the record.", type=click.Path(exists=True, path_type=Path)),
        click.Option(["--strict/--lenient"], default=bench.strict, help="Whether a missed budget is a failure."),
    ]
    settings = {"show_default": True, "max_content_width": 120}
    own = list(bench.options)
    return Program(name, params=[*own, *common], callback=_callback(name, bench), help=bench.measure.__doc__, context_settings=settings)


def _callback(name: str, bench: Bench) -> Callable[..., None]:
    @click.pass_context
    def main(
        context: click.Context,
        /,
        *,
        repeats: int,
        quick: bool,
        json_file: Path | None,
        compare: Path | None,
        strict: bool,
        servers: str | None = None,
        **own: Any,
    ) -> None:
        if quick:
            if json_file is not None and json_file.resolve().parent == RECORDS.resolve():
                raise click.UsageError("a quick run only shows that it works: no record is made of it (RECORD=1 without QUICK=1)")
            small = {"repeats": 1, **bench.quick}
            own |= {key: small[key] for key in own.keys() & small.keys() if context.get_parameter_source(key) is ParameterSource.DEFAULT}
            repeats = small["repeats"] if context.get_parameter_source("repeats") is ParameterSource.DEFAULT else repeats
        facts, runs = machine.facts(), list[Figures]()
        try:
            with Lab(servers, repeats, quick, bench.simulated) as lab:
                for repeat in range(repeats):
                    runs.append(bench.measure(lab, repeat, **own))
                    click.echo(f"  #{repeat + 1}: {_shortly(runs[-1])}", err=True)
        except (Unmeasured, TuttiError) as error:
            raise click.ClickException(str(error)) from error
        told = {one.opts[0].lstrip("-").replace("-", "_"): _short(own[one.name or ""]) for one in bench.options if not _written(one)}
        options = {**told, "repeats": repeats, **({"quick": True} if quick else {}), **({"servers": "given"} if servers else {})}
        options |= lab.options
        tables = bench.tables
        report = Report(name, lab.simulated, facts, options, runs, bench.budgets, tables, bench.derived, bench.also, lab.details)
        report.end(json_file, compare, strict=strict, wrong=lab.wrong)

    return main


def _written(option: click.Option) -> bool:
    """Whether it names what is written: no figure depends on it."""
    return isinstance(option.type, click.Path) and not option.type.exists


def _short(value: Any) -> Any:
    """Of an option: where a file lies is nobody's business."""
    return value.name if isinstance(value, Path) else value


def under(name: str, figures: Figures, mark: str = ".") -> dict[str, float]:
    """The figures of one scenario of a run, under its name; shown to whoever waits."""
    click.echo(f"  {name}: {_shortly(figures)}", err=True)
    return {f"{name}{mark}{figure}": value for figure, value in figures.items()}


def _shortly(figures: Figures, most: int = 12) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in list(figures.items())[:most]) + (", ..." if len(figures) > most else "")
