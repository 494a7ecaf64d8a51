"""Promise: who streams a pattern's answer is told of its earlier steps in comments, and its tree shows each where the pattern called it,
with who answered and how long that took (simulated, virtual time).

How: a pattern with a gather, on the whole in-memory cluster.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from shared.tree import Tree
from tests.simulated.test_operator_patterns import called
from tests.support.cluster import processes
from tests.support.cluster.faults import FaultMix
from tests.support.cluster.rest import Request
from tests.support.cluster.world import World

PATTERN = '''
"""panel: a plan, then an expert and a draft with its review side by side, then a verdict."""

from shared.contracts.chat import ChatMessage
from shared.patterns.context import chat
from shared.patterns.port import Pattern


async def panel(ctx, job, _):
    def ask(agent, **own):
        return ctx.ask(chat(job, (*job.turns, ChatMessage(role="user", content=agent)), agent=agent, **own))

    async def reviewed():
        await ask("draft")
        return await ask("review")

    await ask("plan")
    await ctx.gather(ask("expert"), reviewed())
    await ctx.sleep(1.0)
    return await ask("verdict", stream=job.stream)


PANEL = Pattern("panel", 1, panel, likely_calls=lambda job, ask: [50] * 5)
'''


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "panel.py").write_text(PATTERN)
    monkeypatch.setenv("TUTTI_PATTERNS", str(tmp_path))


def test_a_pattern_is_watched_while_it_works() -> None:
    """Comments in the order of the answers, all before the text; nothing of the last step, whose text is the answer."""

    async def scenario() -> None:
        async with World(3, FaultMix()) as world:
            world.start_all()
            assert await world.until(lambda: all(found.service.readiness().ready for found in world.instances.values()), 60.0)
            body = {"model": "tutti/panel", "messages": [{"role": "user", "content": "a stone"}], "stream": True}
            answer = await called(world, Request("POST", "/v1/chat/completions", body))
            assert answer.status == 200
            text = answer.body.decode()
            told = re.findall(r"^: step (\w+) answered by ([\w-]+) in [\d.]+ s$", text, re.MULTILINE)
            agents = [agent for agent, _ in told]
            assert (agents[0], sorted(agents[1:])) == ("plan", ["draft", "expert", "review"])
            assert agents.index("draft") < agents.index("review")
            assert "\n: pausing\n" in text
            assert text.rindex(": pausing") < text.index("data: ")
            assert "verdict answered" not in text

            shown = (await called(world, Request("GET", f"/v1/jobs/{answer.headers['x-tutti-job']}/tree"))).body
            tree = Tree.model_validate_json(shown)
            assert (tree.whole, tree.status, tree.steps) == (True, "succeeded", 5)
            assert [(node.path, node.step.agent if node.step else node.kind) for node in tree.nodes] == [
                ("0.0", "plan"),
                ("0.1", "gather"),
                ("0.1/0", "branch"),
                ("0.1/0.0", "expert"),
                ("0.1/1", "branch"),
                ("0.1/1.0", "draft"),
                ("0.1/1.1", "review"),
                ("0.2", None),
                ("0.3", "verdict"),
            ]
            steps = {node.step.agent or "pause": node.step for node in tree.nodes if node.step}
            assert {name: step.state for name, step in steps.items() if name != "pause"} == dict.fromkeys(
                ("plan", "expert", "draft", "review", "verdict"), "answered"
            )
            assert steps["pause"].state == "over"
            assert [(agent, steps[agent].nodes[-1]) for agent, _ in told] == told
            seconds = {name: step.seconds or 0.0 for name, step in steps.items()}
            assert min(seconds.values()) > 0
            slower = max(seconds["expert"], seconds["draft"] + seconds["review"])
            wanted = seconds["plan"] + slower + seconds["pause"] + seconds["verdict"]
            assert tree.critical_seconds == pytest.approx(wanted, abs=0.01)
            assert tree.seconds is not None
            assert wanted == pytest.approx(tree.seconds, abs=0.5)

    processes.run(scenario())
