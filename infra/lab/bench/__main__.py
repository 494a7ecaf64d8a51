"""`python -m infra.lab.bench NAME [options]`: one bench of those below; without a name the first. `--help` lists them, `NAME --help` its
options.
"""

from __future__ import annotations

from importlib import import_module

import click

from infra.lab.bench.runner import command

BENCHES = {
    "bench": "infra.lab.bench.pass_through",
    "backlog": "infra.lab.bench.backlog",
    "cache": "infra.lab.bench.cache",
    "calibrate": "infra.lab.fleet.calibrate",
    "cancel": "infra.lab.bench.cancel",
    "chaos": "infra.lab.chaos.chaos",
    "delays": "infra.lab.bench.delays",
    "fleet": "infra.lab.fleet.policies",
    "fleet-live": "infra.lab.fleet.live",
    "idle": "infra.lab.bench.idle",
    "meanings": "infra.lab.bench.meanings",
    "patterns": "infra.lab.bench.patterns",
    "priority": "infra.lab.bench.priority",
    "recovery": "infra.lab.bench.recovery",
    "sink": "infra.lab.bench.sink",
    "sizing": "infra.lab.bench.sizing",
    "takeover": "infra.lab.bench.takeover",
    "versus": "infra.lab.versus.versus",
}
"""Name of the bench, of its record, and the module whose BENCH it is: only that one is imported."""


class _Benches(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(BENCHES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = BENCHES.get(cmd_name)
        return None if module is None else command(cmd_name, import_module(module).BENCH)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        known = args and (args[0] in BENCHES or args[0] == "--help")
        return super().parse_args(ctx, args if known else ["bench", *args])


@click.command(cls=_Benches)
def main() -> None:
    """Measure: what it costs, what it withstands, beside what. Exit code 1: something was lost, did not start, or missed its budget."""


if __name__ == "__main__":
    main()
