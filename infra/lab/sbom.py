"""`make sbom`: what is shipped, as CycloneDX 1.6, from the lock files: each package with its version, hashes, licence and what needs it.

    python -m infra.lab.sbom --lock requirements.lock --out dist/sbom.cdx.json

A lock file is the truth: the document is made of it and then read back and compared with it, package by package and hash by hash. It says
nothing of weaknesses; that takes a data source that answers, which a machine without a network has not (`--scan` says so).
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import Any

import aiohttp
import click
from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import DisjunctiveLicense
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from infra.cli.exits import Program
from shared import __version__

ADVISORIES = "https://api.osv.dev/v1/querybatch"
SCAN_SECONDS = 20.0
OURS = "tutti-cluster"
_PACKAGE = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([^ ;\\]+)")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_VIA = re.compile(r"#(?: via)? +([A-Za-z0-9][A-Za-z0-9._-]*)")


@dataclass(slots=True)
class Locked:
    """A package of a lock file. `via`: those that need it."""

    name: str
    version: str
    hashes: set[str] = field(default_factory=set)
    via: set[str] = field(default_factory=set)


def read_lock(text: str) -> dict[str, Locked]:
    """`name==version` → what is locked: of some there are two, for different Pythons. Raises ValueError of a line that is none of a lock
    file's.
    """
    found: dict[str, Locked] = {}
    last: Locked | None = None
    for line in text.splitlines():
        stripped = line.strip()
        if match := _PACKAGE.match(line):
            last = Locked(match[1].lower(), match[2])
            found[f"{last.name}=={last.version}"] = last
        elif stripped.startswith("--hash=") and last is not None:
            last.hashes.update(_HASH.findall(stripped))
        elif stripped.startswith("#"):
            if last is not None and (match := _VIA.match(stripped)):
                last.via.add(match[1].lower())
        elif stripped:
            raise ValueError(f"{stripped[:60]!r} is no line of a lock file")
    return found


def document(locked: Mapping[str, Locked], version: str) -> str:
    """The same as CycloneDX's JSON."""
    bom = Bom()
    ours = bom.metadata.component = Component(name=OURS, version=version, type=ComponentType.APPLICATION, bom_ref=OURS)
    parts = {key: _component(locked[key]) for key in sorted(locked)}
    for key, part in [("", ours), *parts.items()]:
        user = locked[key].name if key else OURS
        bom.register_dependency(part, [parts[other] for other, one in locked.items() if user in one.via])
        if key:
            bom.components.add(part)
    return str(JsonV1Dot6(bom).output_as_string(indent=1))


def _component(one: Locked) -> Component:
    purl = PackageURL("pypi", None, one.name, one.version)
    hashes = [HashType(alg=HashAlgorithm.SHA_256, content=value) for value in sorted(one.hashes)]
    said = licence(one.name)
    licences = [DisjunctiveLicense(name=said)] if said else []
    return Component(
        name=one.name, version=one.version, type=ComponentType.LIBRARY, purl=purl, bom_ref=str(purl), hashes=hashes, licenses=licences
    )


def differences(text: str, locked: Mapping[str, Locked]) -> list[str]:
    """What a document has otherwise than the lock file, a line each."""
    found: dict[str, Any] = {f"{part['name']}=={part['version']}": part for part in json.loads(text).get("components", ())}
    lines = [f"{key} is missing" for key in sorted(locked.keys() - found.keys())]
    lines += [f"{key} is not locked" for key in sorted(found.keys() - locked.keys())]
    both = sorted(locked.keys() & found.keys())
    return lines + [f"{key} has other hashes" for key in both if _hashes(found[key]) != locked[key].hashes]


def licence(package: str) -> str | None:
    """As the package says it that is installed here; None for what is for other systems only."""
    try:
        said = metadata(package)
    except PackageNotFoundError:
        return None
    classified = [name.split(" :: ")[-1] for name in said.get_all("Classifier") or () if name.startswith("License ::")]
    given = [*(said.get_all("License-Expression") or ()), ", ".join(classified), *(said.get_all("License") or ()), "unknown"]
    return str(next(one for one in given if one)).splitlines()[0]


def _hashes(part: dict[str, Any]) -> set[str]:
    return {entry["content"] for entry in part.get("hashes", ())}


async def scan(locked: Mapping[str, Locked]) -> dict[str, list[str]]:
    """Package → ids of advisories, by OSV. Raises aiohttp.ClientError, TimeoutError where it does not answer."""
    keys = sorted(locked)
    asked = {"queries": [{"package": {"ecosystem": "PyPI", "name": locked[key].name}, "version": locked[key].version} for key in keys]}
    async with (
        asyncio.timeout(SCAN_SECONDS),
        aiohttp.ClientSession(trust_env=True) as session,
        session.post(ADVISORIES, json=asked, raise_for_status=True) as response,
    ):
        answers = (await response.json())["results"]
    return {key: [one["id"] for one in answer["vulns"]] for key, answer in zip(keys, answers, strict=True) if answer.get("vulns")}


@click.command(cls=Program)
@click.option("--lock", "locks", type=click.Path(path_type=Path), multiple=True, default=[Path("requirements-image.lock")])
@click.option("--out", type=click.Path(path_type=Path), default=Path("dist/sbom.cdx.json"), show_default=True)
@click.option("--version", default=__version__, show_default=True)
@click.option("--scan", "scanned", is_flag=True, help="Ask OSV for advisories; where nobody answers that is said, and is no failure.")
def main(locks: tuple[Path, ...], out: Path, version: str, *, scanned: bool) -> None:
    """Write the document, and see that it is complete."""
    locked: dict[str, Locked] = {}
    for path in locks:
        locked |= read_lock(path.read_text())
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(document(locked, version))
    wrong = differences(out.read_text(), locked)
    for line in wrong:
        click.echo(line, err=True)
    if wrong:
        sys.exit(1)
    click.echo(f"{out}: {len(locked)} packages, as locked")
    for said, count in Counter(licence(one.name) for one in locked.values()).most_common():
        click.echo(f"{count:4}  {said or 'not installed here'}")
    if not scanned:
        return
    try:
        found = asyncio.run(scan(locked))
    except (aiohttp.ClientError, TimeoutError, ValueError, KeyError) as error:
        click.echo(f"not scanned: the source of advisories does not answer ({type(error).__name__})")
        return
    for key, ids in found.items():
        click.echo(f"{key}: {', '.join(ids)}")
    click.echo(f"{len(found)} of {len(locked)} packages have advisories")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
