"""`tutti seals`: makes cluster keys, tells what wraps what, wraps anew; who lacks a key is told which."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from infra.cli.exits import Exit
from shared.contracts.act import Act
from shared.contracts.data_key import DataKey
from shared.kafka.port import Message
from shared.processing.provision import new_topics
from shared.sealing.cipher import ClusterKeys, id_of, new_key
from tests.support.cli_stage import NOW, TOPICS, Stage
from tests.support.sealing import keys_file


@pytest.fixture
def stage() -> Stage:
    one = Stage()
    one.log.create(new_topics(TOPICS))
    return one


def hold(stage: Stage, keys: ClusterKeys, *names: str) -> None:
    for name in names:
        by, wrapped = keys.wrap(new_key(), name)
        said = DataKey(tenant=name.partition("/")[0], cluster_key=by, wrapped=wrapped, at=NOW)
        stage.write(Message(TOPICS.data_keys, said.to_bytes(), name.encode(), 0))


def test_a_key_is_added_behind_those_in_the_file(stage: Stage, tmp_path: Path) -> None:
    file = tmp_path / "cluster-keys"
    made = [stage.tutti("seals", "make-key", str(file)).stdout.strip() for _ in range(2)]
    assert list(ClusterKeys(str(file)).ids) == made
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    refused = stage.tutti("seals", "make-key", str(tmp_path))
    assert refused.exit_code == Exit.USAGE


def test_a_rotation_from_the_old_key_to_the_new(stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "nothing is sealed" in stage.tutti("seals", "status").output
    assert stage.tutti("seals", "rotate").exit_code == Exit.SETTINGS
    old, new = new_key(), new_key()
    hold(stage, ClusterKeys(str(keys_file(tmp_path, old))), "/1", "acme/2", "acme/3", "globex/4")
    file = keys_file(tmp_path, new, old)
    monkeypatch.setenv("TUTTI_SEALING__KEYS_FILE", str(file))
    before = stage.json("seals", "status")
    assert [(row["cluster_key"], row["data_keys"], row["tenants"]) for row in before] == [(id_of(new), 0, 0), (id_of(old), 4, 2)]
    done = stage.tutti("seals", "rotate")
    assert (done.exit_code, done.output) == (Exit.OK, "4 data keys are wrapped anew\n")
    keys_file(tmp_path, new)
    assert [(row["place"], row["data_keys"]) for row in stage.json("seals", "status")] == [("first: it wraps", 4)]
    [act] = [Act.model_validate_json(record.value or b"") for record in stage.records(TOPICS.acts)]
    assert (act.did, act.kind, act.name) == ("rotate", "cluster_key", id_of(new))


def test_what_another_key_wraps_is_left_and_told(stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stranger = new_key()
    hold(stage, ClusterKeys(str(keys_file(tmp_path, stranger))), "/1")
    monkeypatch.setenv("TUTTI_SEALING__KEYS_FILE", str(keys_file(tmp_path, name="ours")))
    assert stage.json("seals", "status")[1] == {"cluster_key": id_of(stranger), "place": None, "data_keys": 1, "tenants": 0}
    left = stage.tutti("seals", "rotate")
    assert left.exit_code == Exit.SETTINGS
    assert "1 data keys are wrapped by cluster keys that the file does not hold" in left.stderr
