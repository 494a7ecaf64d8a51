"""The fleet simulator plays by the rules that it says, the same way each time, and shows what the bench claims (small plays)."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from click.testing import CliRunner

from infra.lab.bench.__main__ import main
from infra.lab.fleet import live
from infra.lab.fleet.machine import Call, Machine
from infra.lab.fleet.play import Play
from infra.lab.fleet.scenarios import machines, one_place, peer, stretch, trace
from infra.lab.fleet.spec import Arrival, Change, Fleet, Request, mixed, requests
from infra.lab.fleet.timeline import Timeline
from infra.lab.fleet.worker import Worker
from infra.lab.simulators.ollama.parameters import ModelParameters, Parameters


def played(*, loaded: int = 1, parallel: int = 2) -> tuple[Timeline, Machine, list[Call]]:
    """A machine that reads 100 and writes 10 tokens a second, and loads a model in 2 s."""
    names = ("a", "b")
    models = tuple(ModelParameters(name=n, size_gb=1, prefill_tokens_per_second=100, decode_tokens_per_second=10) for n in names)
    node = Parameters(
        models=models, num_parallel=parallel, max_loaded_models=loaded, load_gb_per_second=1, cached_load_gb_per_second=1,
        load_fixed_seconds=1, jitter=0, decode_sharing=1, prefill_interference=0,
    )  # fmt: skip
    timeline = Timeline()
    return timeline, Machine(node, timeline, Random(0)), []


def test_a_call_loads_reads_and_writes() -> None:
    """Two seconds, one second, five seconds."""
    timeline, machine, ended = played()
    machine.begin(Call("a", 100, 50, ended.append))
    timeline.run(lambda: False, 100)
    [call] = ended
    assert [call.first_at, call.ended_at, call.load_seconds, machine.loads] == pytest.approx([3, 8, 2, 1])


def test_calls_that_write_together_share_the_machine() -> None:
    """Fully shared: two of 50 tokens take as long as one of 100."""
    timeline, machine, ended = played()
    for _ in range(2):
        machine.begin(Call("a", 100, 50, ended.append))
    timeline.run(lambda: False, 100)
    assert [call.ended_at for call in ended] == [pytest.approx(13), pytest.approx(13)]


def test_a_model_with_calls_is_not_put_out() -> None:
    """The other waits for its end, then loads."""
    timeline, machine, ended = played()
    machine.begin(Call("a", 100, 50, ended.append))
    machine.begin(Call("b", 100, 50, ended.append))
    timeline.run(lambda: False, 100)
    assert [(call.model, round(call.ended_at)) for call in ended] == [("a", 8), ("b", 16)]
    assert machine.loads == 2


def test_the_same_seed_plays_the_same() -> None:
    """All instants; and another seed does not."""
    one, two, other = (peer("hybrid", seed) for seed in (3, 3, 4))
    assert one == two
    assert one != other


def test_steps_of_a_model_run_together() -> None:
    """A B A A C A B C on one place: three loads."""
    assert one_place("hybrid", 0)["loads"] == 3
    assert one_place("least_active", 0)["loads"] > 3


def blocked(seed: int, names: str, most_models: int) -> tuple[int, float]:
    """How often a load waited at a machine for calls of a model that had to leave; the longest first token."""
    requests = mixed([Arrival(number / 2, 100, 60) for number in range(150)], names, seed)
    played = Play(machines((4, 4), names, most_models=most_models, slots=3), requests, policy="hybrid", seed=seed).run()
    return sum(worker.machine.blocked for worker in played.workers), max(one.first_seconds for one in played.told)


@pytest.mark.parametrize(("names", "most_models"), [("abc", 1), ("abcdef", 2)])
def test_no_load_begins_while_a_call_runs_of_what_it_puts_out(names: str, most_models: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nobody waits for ever. A worker that does not look (the planted fault) makes machines wait."""
    ours = [blocked(seed, names, most_models) for seed in range(3)]
    assert [times for times, _ in ours] == [0, 0, 0]
    monkeypatch.setattr(Worker, "_begins", lambda *_: True)
    planted = [blocked(seed, names, most_models) for seed in range(3)]
    assert all(times > 0 for times, _ in planted)
    assert sum(longest for _, longest in ours) <= sum(longest for _, longest in planted) + 30


@pytest.mark.parametrize("what", ["dies", "vanishes"])
def test_a_lost_machine_costs_no_request(what: str) -> None:
    """What it had is asked again elsewhere."""
    fleet = machines((4, 4, 4), ["m"], slots=2)
    lost = fleet.nodes[0].model_copy(update={"changes": (Change.model_validate({"at_seconds": 8.0, "what": what}),)})
    fleet = fleet.model_copy(update={"nodes": (lost, *fleet.nodes[1:])})
    requests = [Request(number / 2, 200, 50, "m") for number in range(60)]
    after = Play(fleet, requests, policy="hybrid", seed=1).run()
    assert after.failed == 0
    assert all(one.ended_at < float("inf") for one in after.told)
    assert any(one.attempts > 1 for one in after.told)


def test_the_trace_is_whole() -> None:
    """As published: 19,366 conversations; what is tuned on and what is held back do not overlap."""
    assert len(trace()) == 19_366
    assert not {one.at for one in stretch(0, 3_000)} & {one.at for one in stretch(1, 3_000)}


def test_a_fleet_is_read_from_a_file(tmp_path: Path) -> None:
    """And what it does not know is refused."""
    path = tmp_path / "fleet.yaml"
    path.write_text("nodes:\n- name: gpu\n  profile: gpu-server\n  slots: 4\n- name: mini\n  count: 3\n  profile: mini-pc\n")
    assert [name for name, _ in Fleet.read(path).each()] == ["gpu", "mini-0", "mini-1", "mini-2"]
    path.write_text("nodes:\n- name: gpu\n  colour: red\n")
    with pytest.raises(ValueError, match="colour"):
        Fleet.read(path)


OFFICE = Path(live.__file__).with_name("office.yaml")


def test_a_machine_with_room_is_loaded_while_others_are_asked_for() -> None:
    """Its load would take longer than the wait for the busy one, each time; but it serves all that come after."""
    fleet = machines((8, 8), ["m"], size=8.0)
    asked = [Request(0.0, 200, 40, "m"), *(Request(20.0 + 2.4 * pair + late, 200, 40, "m") for pair in range(30) for late in (0.0, 0.3))]
    assert all(worker.taken for worker in Play(fleet, asked, policy="hybrid", seed=1).run().workers)


def test_a_trace_of_ones_own_is_played_on_a_fleet_of_ones_own(tmp_path: Path) -> None:
    """Times from the first row on; models and classes as the rows say, else drawn of the first node's; what dies and fails costs nobody."""
    path, fleet = tmp_path / "trace.csv", Fleet.read(OFFICE)
    path.write_text("milliseconds,prompt_tokens,output_tokens,model,class\n2000,10,20,llama3.1:8b,batch\n3000,0,5,,\n")
    first, second = requests(path, fleet, 0, most=9, faster=2.0)
    assert (first.at, first.prompt, first.model, first.priority_class.value) == (0.0, 10, "llama3.1:8b", "batch")
    assert (second.at, second.prompt, second.priority_class.value) == (0.5, 1, "interactive")
    path.write_text("milliseconds,prompt_tokens,output_tokens,model\n0,1,1,nobody-has-it\n")
    with pytest.raises(ValueError, match="nobody-has-it"):
        requests(path, fleet, 0, most=9)
    path.write_text("time\n1\n")
    with pytest.raises(ValueError, match="milliseconds"):
        requests(path, fleet, 0, most=9)
    asked = [Request(number / 2, 100, 50, "llama3.2:1b") for number in range(260)]
    assert Play(fleet, asked, policy="hybrid", seed=0).run().failed == 0


def test_what_only_virtual_time_can_do_is_refused_in_real_time(tmp_path: Path) -> None:
    """Before anything is started."""
    path = tmp_path / "fleet.yaml"
    path.write_text("nodes:\n- name: a\n  changes: [{at_seconds: 1, what: vanishes}]\n")
    told = CliRunner().invoke(main, ["fleet-live", "--fleet", str(path)])
    assert told.exit_code == 2
    assert "only in virtual time: vanishes" in told.output
