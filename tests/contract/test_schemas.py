"""Generated documents are current, valid, and complete."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from pydantic_settings import BaseSettings

import infra
from infra.cli.settings import CommandLineSettings
from infra.native.settings import NativeSettings
from infra.schemas import generate, settings
from infra.schemas.messages import contracts, messages
from shared.contracts.base import VERSION
from shared.oidc import OidcSettings
from shared.service.configuration import ShellSettings
from shared.services import SERVICES, AddedServices
from shared.topics import FAMILIES, Topics
from tests.support.chart import is_setting, settings_of

ROOT = Path(infra.__file__).parents[1]
_READ = re.compile(r"""(?:environ(?:\.get)?[\[(]|getenv\()\s*["'](TUTTI_\w+)""")
ASYNCAPI: dict[str, Any] = yaml.safe_load((ROOT / "schemas/asyncapi.yaml").read_text())


def test_generated_files_are_current() -> None:
    """What is committed is what the code generates; `tutti schemas generate` brings it up to date."""
    assert generate.stale(ROOT) == []


def test_every_setting_says_what_it_is_for() -> None:
    """Below its field, or its group's; each has one variable."""
    found = [setting for _, group in settings.groups() for setting in group]
    assert [setting.variable for setting in found if not setting.about] == []
    assert len({setting.variable for setting in found}) > 300


def test_a_default_is_shown_as_a_variable_says_it() -> None:
    """What the page shows, typed, is what is so without it: also lists and maps."""
    of_services = (settings_of(service.name) for service in SERVICES)
    kinds: list[type[BaseSettings]] = [ShellSettings, *of_services, OidcSettings, AddedServices, CommandLineSettings, NativeSettings]
    for kind, (title, group) in zip(kinds, settings.groups(), strict=True):
        assert [setting.variable for setting in group if not is_setting(setting.variable, kind)] == []
        with pytest.MonkeyPatch.context() as environment:
            for setting in group:
                environment.delenv(setting.variable, raising=False)
            before = kind()
            for setting in (one for one in group if one.default):
                environment.setenv(setting.variable, setting.default.strip("`"))
            assert kind() == before, title


def test_every_variable_that_is_read_stands_on_the_page() -> None:
    """Also one that some line asks the environment for by its name, past all classes."""
    sources = [path.read_text() for folder in ("services", "shared", "infra") for path in (ROOT / folder).rglob("*.py")]
    read = {name for source in sources for name in _READ.findall(source)}
    assert "TUTTI_WORKER__TOOLS" in read
    assert read <= {setting.variable for _, group in settings.groups() for setting in group}


def test_generation_is_deterministic() -> None:
    """Two runs give the same bytes."""
    assert generate.render(ROOT) == generate.render(ROOT)


def test_a_stale_file_is_seen_and_repaired(tmp_path: Path) -> None:
    """Changed, missing and superfluous files are all found, and `write` leaves none."""
    for path, content in generate.render(ROOT).items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(content)
    (tmp_path / "services").symlink_to(ROOT / "services")
    assert generate.stale(tmp_path) == []
    (tmp_path / "schemas/topics.json").write_text("{}")
    (tmp_path / "schemas/messages/Job.json").unlink()
    (tmp_path / "schemas/messages/Gone.json").write_text("{}")
    readme = tmp_path / "README.md"
    readme.write_text(readme.read_text().replace("| service |", "| servant |"))
    expected = ["README.md", "schemas/messages/Gone.json", "schemas/messages/Job.json", "schemas/topics.json"]
    assert generate.stale(tmp_path) == expected
    assert generate.write(tmp_path) == expected
    assert generate.stale(tmp_path) == []


@pytest.mark.parametrize("name", messages())
def test_a_schema_is_valid_and_names_its_message(name: str) -> None:
    """JSON Schema 2020-12; required fields are described."""
    schema = json.loads((ROOT / f"schemas/messages/{name}.json").read_text())
    Draft202012Validator.check_schema(schema)
    assert schema["$id"] == f"tutti:v{VERSION}:{name}"
    assert set(schema.get("required", ())) <= set(schema["properties"])


def test_the_job_schema_refuses_what_the_reader_refuses() -> None:
    """A producer in another language can check a job before it sends it."""
    validator = Draft202012Validator(json.loads((ROOT / "schemas/messages/Job.json").read_text()))
    assert validator.is_valid({"prompt": "hello"})
    for wrong in (
        {"prompt": 1},
        {"prompt": "a", "promtp": 1},
        {"prompt": "a", "options": {"temperature": 9}},
        {"messages": [{"role": "robot"}]},
    ):
        assert not validator.is_valid(wrong)


def test_topics_json_lists_every_topic() -> None:
    """With the configuration that `tutti topics create` gives it."""
    listed = json.loads((ROOT / "schemas/topics.json").read_text())["topics"]
    topics = Topics()
    assert {(t["name"], t["partitions"], t["config"]["cleanup.policy"]) for t in listed} == {
        (t.name, t.partitions, t.family.cleanup) for t in topics.all()
    }


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            if key == "$ref":
                yield item
            else:
                yield from _references(item)
    elif isinstance(value, list):
        for item in value:
            yield from _references(item)


def test_every_reference_of_the_asyncapi_document_leads_somewhere() -> None:
    """Inside the document, or to a schema file beside it."""
    for reference in _references(ASYNCAPI):
        path, _, pointer = reference.partition("#")
        if path:
            assert (ROOT / "schemas" / path).exists(), reference
            continue
        target: Any = ASYNCAPI
        for part in pointer.strip("/").split("/"):
            target = target[part.replace("~1", "/").replace("~0", "~")]


def test_the_asyncapi_document_has_the_shape_of_version_3() -> None:
    """Required members; channel parameters and addresses agree; operations use messages of their channel."""
    assert ASYNCAPI["asyncapi"] == "3.0.0"
    assert {"title", "version"} <= set(ASYNCAPI["info"])
    for channel in ASYNCAPI["channels"].values():
        in_address = {part.strip("{}") for part in channel["address"].split(".") if part.startswith("{")}
        assert set(channel.get("parameters", {})) == in_address
        assert channel["bindings"]["kafka"]["partitions"] > 0
    for operation in ASYNCAPI["operations"].values():
        assert operation["action"] in {"send", "receive"}
        channel = operation["channel"]["$ref"]
        assert all(message["$ref"].startswith(f"{channel}/messages/") for message in operation["messages"])


def test_fast_streams_own_model_of_asyncapi_reads_the_document() -> None:
    """A second reader, written by others (it asks for a server path, which the specification does not)."""
    from faststream.specification.asyncapi.v3_0_0.schema import ApplicationSchema

    document = json.loads(json.dumps(ASYNCAPI))
    document["servers"]["kafka"]["pathname"] = ""
    read = ApplicationSchema.model_validate(document)
    assert set(read.channels) == set(ASYNCAPI["channels"])
    assert set(read.operations) == set(ASYNCAPI["operations"])


def test_the_asyncapi_document_knows_every_channel_and_message() -> None:
    """Nothing of the registry is left out."""
    assert {channel["address"] for channel in ASYNCAPI["channels"].values()} == {family.pattern for family in FAMILIES}
    assert set(ASYNCAPI["components"]["messages"]) == set(messages()) <= set(contracts())
