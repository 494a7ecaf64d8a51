"""`tutti nodes`: what the workers have registered on the `nodes` topic, whether they are heard, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import click
from pydantic import ValidationError

from infra.cli.cluster import Cluster, with_cluster
from infra.cli.exits import CommandExit, Exit
from infra.cli.output import AS_JSON, emit_json, emit_table, size
from infra.cli.rest import called, part
from shared.contracts.node import Gpu, Node, NodeModel
from shared.kafka.port import Record
from shared.placement.prior import prior_speeds
from shared.placement.roster import ShownNode, heard, shown


@click.group(invoke_without_command=True)
@AS_JSON
@click.pass_context
def nodes(context: click.Context, *, as_json: bool) -> None:
    """List the model nodes: state, hardware, models, slots, and what is wrong with them."""
    if context.invoked_subcommand is not None:
        return
    found = with_cluster(context, read_nodes)
    if as_json:
        emit_json([node.model_dump(mode="json", exclude_none=True) for node in found])
        return
    emit_table(
        ("node", "state", "backend", "mailbox", "slots", "memory", "hardware", "capabilities", "models"),
        [
            (
                node.id,
                node.state,
                f"{node.backend} {node.version}".strip() + (" (simulated)" if node.simulated else ""),
                node.mailbox,
                f"{node.running}/{node.slots}",
                size(node.hardware.vram_bytes or node.hardware.ram_bytes),
                node.hardware.accelerator or f"{node.hardware.cpu_count} CPUs",
                ",".join(node.capabilities),
                ",".join(model.name + ("*" if model.resident else "") for model in node.models),
            )
            for node in found
        ],
        empty="no node has registered; start a worker",
    )
    for node in found:
        for one in node.advice:
            click.echo(f"{node.id}: {one.level}: {one.text}")


@nodes.command()
@click.argument("node")
@AS_JSON
@click.pass_context
def show(context: click.Context, node: str, *, as_json: bool) -> None:
    """One node: its graphics processors, and each model with size, window, abilities, memory, speeds."""
    found = next((one for one in with_cluster(context, read_nodes) if one.id == node), None)
    if found is None:
        raise CommandExit(Exit.NOT_FOUND, f"no node {node} is registered")
    if as_json:
        emit_json(found.model_dump(mode="json", exclude_none=True))
        return
    click.echo("  ".join(_about(found)))
    emit_table(
        ("model", "size", "in VRAM", "quantisation", "window", "can", "prefill/s", "decode/s", "load s"),
        [
            (
                model.name + ("*" if model.resident else ""),
                size(model.size_bytes),
                size(model.vram_bytes) if model.loaded_bytes else "-",
                model.quantisation or "-",
                model.room,
                ",".join(_can(model)),
                *_speeds(found, model),
            )
            for model in found.models
        ],
        empty="it has no model",
    )
    for one in found.advice:
        click.echo(f"{one.level}: {one.text}")


@nodes.command()
@click.argument("node")
@click.option("--reason", default="", help="For people.")
def maintain(node: str, reason: str) -> None:
    """Take a node out of service: what runs ends, nothing new begins, also when its worker is started again."""
    called("PUT", f"/v1/nodes/{part(node)}/maintenance", {"reason": reason})
    click.echo(f"{node}: out of service")


@nodes.command()
@click.argument("node")
def resume(node: str) -> None:
    """Take a node back into service."""
    called("DELETE", f"/v1/nodes/{part(node)}/maintenance")
    click.echo(f"{node}: in service")


def _about(node: ShownNode) -> Iterator[str]:
    hardware = node.hardware
    yield from (node.id, node.state, f"{node.running} of {node.slots} slots", f"{hardware.cpu_count} CPUs", size(hardware.ram_bytes))
    yield from map(_gpu, hardware.gpus)
    if hardware.bandwidth:
        yield f"{hardware.bandwidth:g} GB/s"
    if hardware.members:
        yield f"split over {hardware.members} servers"
    if node.cost_per_hour:
        yield f"{node.cost_per_hour:g} an hour"
    yield from node.tags


def _gpu(gpu: Gpu) -> str:
    return f"{gpu.name} ({size(gpu.vram_bytes)}, driver {gpu.driver or 'unknown'})"


def _speeds(node: Node, model: NodeModel) -> Iterator[str]:
    """As measured; what was not is likely by the hardware, and marked so."""
    measured = (model.prefill_tokens_per_second, model.decode_tokens_per_second, model.load_seconds)
    for found, likely in zip(measured, prior_speeds(node.hardware, model), strict=True):
        yield f"~{likely:.1f}" if found is None else f"{found:.1f}"


def _can(model: NodeModel) -> list[str]:
    """In people's words: operations and abilities."""
    return [*model.operations, *(ability for ability, able in model.abilities.items() if able)]


async def read_nodes(cluster: Cluster) -> list[ShownNode]:
    """Each node's newest record, with its state, by id."""
    records = [record async for record in cluster.read_all(cluster.topics.nodes)]
    alive = await cluster.connected(heard(cluster.log, cluster.topics, "tutti-cli"))
    now = cluster.clock.wall()
    return [shown(node, alive, now) for node in newest(records)]


def newest(records: Iterable[Record]) -> list[Node]:
    """The last record of each key; tombstones and foreign records are left out."""
    last: dict[bytes, Record] = {record.key: record for record in records if record.key is not None}
    found: list[Node] = []
    for record in last.values():
        try:
            found.append(Node.model_validate_json(record.value or b""))
        except ValidationError:
            continue
    return sorted(found, key=lambda node: node.id)
