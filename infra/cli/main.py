"""Entry point of `tutti`: the list of commands."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Mapping

import click

from infra.cli.exits import HELP, Program
from shared import __version__

COMMANDS: Mapping[str, tuple[str, str]] = {
    "up": ("infra.native.cli:up", "Start Kafka, Redis, a model node and the services on this machine."),
    "down": ("infra.native.cli:down", "Stop what `up` started; data stays."),
    "status": ("infra.native.cli:status", "Show what runs and where."),
    "logs": ("infra.native.cli:logs", "Logs of components and services here; or what happened, from the sink."),
    "join": ("infra.cli.join:join", "Make this machine a node of a cluster."),
    "leave": ("infra.cli.join:leave", "End that."),
    "join-token": ("infra.cli.join:join_token", "Print what a machine needs to join this cluster."),
    "run": ("infra.cli.run:run", "Run services in this process until a signal."),
    "submit": ("infra.cli.submit:submit", "Submit a job and wait for its answer."),
    "jobs": ("infra.cli.jobs:jobs", "Look at a job, cancel it, follow its events, run it again."),
    "topics": ("infra.cli.topics:topics", "Create and list topics, show what is unread."),
    "blobs": ("infra.cli.blobs:blobs", "Fetch a large body that a record names."),
    "nodes": ("infra.cli.nodes:nodes", "List the model nodes, take one out of service."),
    "models": ("infra.cli.models:models", "Models: their cards, names and tiers; pull, delete, copy, load, pin them on nodes."),
    "reviews": ("infra.cli.reviews:reviews", "Texts that wait for people: list, show, approve, edit, reject, answer."),
    "conversations": ("infra.cli.conversations:conversations", "What jobs of one conversation have said: list, get, delete."),
    "schedules": ("infra.cli.schedules:schedules", "Recurring jobs: list, declare, remove, when they run next."),
    "prompts": ("infra.cli.declarations:prompts", "Prompts of patterns: list, show, declare, render, move aliases."),
    "agents": ("infra.cli.declarations:agents", "Agents of patterns, the same."),
    "profiles": ("infra.cli.declarations:profiles", "How models are asked, the same."),
    "tools": ("infra.cli.tools:tools", "Tools of the cluster: the same, declare those of a file, call one."),
    "critique": ("infra.cli.critique:critique_file", "Try checks on a file, as a critic makes them."),
    "keys": ("infra.cli.keys:keys", "API keys: make, list, change, rotate, revoke."),
    "seals": ("infra.cli.seals:seals", "Keys of what lies sealed in Kafka: make a cluster key, status, rotate."),
    "tenants": ("infra.cli.tenants:tenants", "Limits and policies of tenants: list, show, declare, change, remove."),
    "dead-letters": ("infra.cli.dead_letters:dead_letters", "Look at records that could not be processed, send them again."),
    "patterns": ("infra.cli.patterns:patterns", "What patterns gain over their baselines: report."),
    "usage": ("infra.cli.usage:usage", "What was used: jobs, tokens, cost, by day, tenant, key, model, ...; or job by job."),
    "top": ("infra.cli.usage:top", "Who used most lately."),
    "audit": ("infra.cli.usage:audit", "The audit chain of history: verify, export."),
    "cache": ("infra.cli.cache:cache", "Answers that may be served again: stats, purge, bar, calibrate."),
    "calibrate": ("infra.cli.calibrate:calibrate", "Find the threshold of a cascade from labelled answers."),
    "verify": ("infra.cli.verify:verify", "Check that nothing was lost or accepted twice."),
    "schemas": ("infra.cli.schemas:schemas", "Generate or check the documents under schemas/."),
}
"""Name → (module:attribute, one line of help), so that `tutti --help` imports none of them."""


class Commands(Program, click.Group):
    """Imports the module of the command asked for, and no other."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, about) for name, (_, about) in COMMANDS.items()])


@click.group(cls=Commands, epilog=HELP, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, prog_name="tutti")
def main() -> None:
    """One LLM cluster from unequal machines: jobs over Kafka and REST, run on Ollama nodes."""
    logging.getLogger().addHandler(logging.NullHandler())  # what goes wrong is the command's one line; `run` sets up logs of its own
