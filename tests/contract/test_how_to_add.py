"""Promise: what ARCHITECTURE ("How to add") counts is all that a change takes. Each kind that is marked there is made by
hand in a copy of the product, in no more files than the table says, and works there; everything else derives.

How: the files are written or edited in a temporary folder, and a process of its own runs the changed product.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
Edit = tuple[str, str] | str
"""(text that is there, text in its place), or a new file's text."""

PATTERN = '''
"""twice: asks twice.

When: once is not enough.
Not when: it is.
Options: none.
Cost: 2 calls, depth 2.

    prompt -> step -> step -> answer
"""

from shared.contracts.chat import Answer
from shared.contracts.job import Job
from shared.patterns.context import Context, chat
from shared.patterns.port import Pattern, PatternInput


class TwiceInput(PatternInput):
    times: int = 2


async def twice(ctx: Context, job: Job, ask: TwiceInput) -> Answer:
    await ctx.ask(chat(job, job.turns))
    return await ctx.ask(chat(job, job.turns))


TWICE = Pattern("twice", 1, twice, TwiceInput)
'''
DIALECT = '''
"""A dialect of one line."""

from services.ingress.dialects.openai import responses
from services.ingress.dialects.port import Asked, Dialect, Terms
from shared.contracts.job import Job


class Line(Asked):
    line: str


def to_job(request: Line, terms: Terms) -> Job:
    return Job(id=terms.identifier, prompt=request.line, model=terms.model, deadline_seconds=terms.deadline_seconds)


LINE = Dialect(
    path="/line",
    summary="One line.",
    request=Line,
    to_job=to_job,
    answer=lambda told, answer, usage: answer.text.encode(),
    stream=responses.ChunkWriter,
)
'''
_BACKENDS = "BACKENDS: dict[str, Callable[[WorkerSettings, Clock], Backend]] = {\n"
_FAMILIES = "FAMILIES: tuple[Family, ...] = (\n"
_MODEL, _STREAM = '    model: ModelName = "auto"\n', '    body["stream"] = True\n'
_FUTURE = "from __future__ import annotations\n"
CHANGES: dict[str, tuple[int, dict[str, Edit], str]] = {
    "a pattern": (
        1,
        {"shared/patterns/twice.py": PATTERN},
        """
from infra.schemas.generate import write
from shared.contracts.job import Job
from shared.patterns import BUILT_IN
assert [type(ask).__name__ for _, ask in [BUILT_IN.read(Job(prompt="x", pattern="twice"))]] == ["TwiceInput"]
assert write(pathlib.Path(".")) == ["README.md", "schemas/patterns.md", "schemas/patterns/twice.json"]
""",
    ),
    "a backend": (
        2,
        {
            "services/worker/backends/spare.py": "from services.worker.backends.in_process import InProcessBackend\n\n\n"
            'class Spare(InProcessBackend):\n    kind = "spare"\n',
            "services/worker/backends/choice.py": (
                _BACKENDS,
                "from services.worker.backends.spare import Spare\n\n"
                + _BACKENDS
                + '    "spare": lambda settings, _: Spare(settings.models),\n',
            ),
        },
        """
from services.worker.backends import choice
from services.worker.settings import WorkerSettings
from shared.clock import LoopClock
backend = choice.backend_of(WorkerSettings(backend="spare"), LoopClock())
assert backend.kind == "spare"
""",
    ),
    "a dialect": (
        1,
        {"services/ingress/dialects/line/__init__.py": DIALECT},
        """
from services.ingress.dialects import served
from services.ingress.http.openapi import document
assert "/line" in [dialect.path for dialect in served()]
assert "/line" in document("t", "1", served())["paths"]
""",
    ),
    "a topic": (
        1,
        {
            "shared/topics.py": (
                _FAMILIES,
                _FAMILIES + '    Family("spare", "none", "other", "delete", DAY_MS, ("ingress",), ("delay",), ("Result",), "Spare."),\n',
            )
        },
        """
from infra.schemas.generate import write
from shared.processing.provision import new_topics
from shared.topics import Topics, TopicSettings
assert "spare" in [topic.name for topic in new_topics(Topics(TopicSettings()))]
assert write(pathlib.Path(".")) == ["README.md", "schemas/asyncapi.yaml", "schemas/topics.json"]
""",
    ),
    "a field of Job that reaches the model": (
        3,
        {
            "shared/contracts/job.py": (
                '    model: ModelName = "auto"\n',
                '    model: ModelName = "auto"\n    mood: Label | None = None\n',
            ),
            "shared/contracts/step.py": (
                '    model: ModelName = "auto"\n',
                '    model: ModelName = "auto"\n    mood: Label | None = None\n',
            ),
            "services/worker/backends/ollama.py": (
                '    body["stream"] = True\n',
                '    body["stream"] = True\n    body["mood"] = step.mood\n',
            ),
        },
        """
from services.worker.backends.base import ModelCall
from services.worker.backends.ollama import request
from services.worker.settings import WorkerSettings
from shared.contracts.job import Job
from shared.contracts.step import Step
from shared.patterns.single import request_of
asked = request_of(Job(prompt="x", mood="calm"))
assert asked.rendered() != request_of(Job(prompt="x")).rendered(), "it decides the answer: another step id"
step = Step(**dict(asked), job="j_1", id="s" * 16, home=0)
assert request(ModelCall(step, "m"), WorkerSettings())["mood"] == "calm"
""",
    ),
    "a check": (
        2,
        {
            "shared/contracts/critique.py": ("    refusal: bool = False\n", "    refusal: bool = False\n    shouting: bool = False\n"),
            "shared/validators/checks.py": (
                "RULES: dict[str, Callable[[str, Any, _Documents], Iterator[Finding]]] = {\n",
                """def _shouting(text: str, _: bool, __: _Documents) -> Iterator[Finding]:
    if text.isupper():
        yield _whole("shouting", "the text shouts")


RULES: dict[str, Callable[[str, Any, _Documents], Iterator[Finding]]] = {
    "shouting": _shouting,
""",
            ),
        },
        """
from shared.contracts.critique import TenantPolicy
from shared.patterns.chain import Gate
from shared.validators.checks import critique
asked = TenantPolicy.model_validate({"direction": "answer", "checks": {"shouting": True}}).checks
assert Gate.model_validate({"checks": {"shouting": True}}).checks == asked
assert critique(["NO"], asked).counts == {"shouting": 1}
assert not critique(["No"], asked).counts
""",
    ),
    "a metric": (
        2,
        {
            "shared/telemetry/metrics.py": ("DEAD_LETTERS = ", 'SPARE = Counter("tutti_spare", "Spare.", [])\nDEAD_LETTERS = '),
            "shared/scheduling/urgency.py": (_FUTURE, _FUTURE + "from shared.telemetry import metrics\nmetrics.SPARE.inc()\n"),
        },
        """
import shared.scheduling.urgency
from prometheus_client import generate_latest
assert b"tutti_spare_total 1.0" in generate_latest()
""",
    ),
    "a command": (
        2,
        {
            "infra/cli/spare.py": 'import click\n\n@click.command()\ndef spare() -> None:\n    """Spare."""\n    click.echo("spared")\n',
            "infra/cli/main.py": ('    "up": ', '    "spare": ("infra.cli.spare:spare", "Spare."),\n    "up": '),
        },
        """
from click.testing import CliRunner
from infra.cli.main import main
assert CliRunner().invoke(main, ["spare"]).output.splitlines() == ["spared"]
""",
    ),
    "a policy for nodes": (
        1,
        {
            "shared/placement/policies/last.py": """from shared.placement.policies.port import foresee

def pick(found, ask, moment):
    return [foresee(found[-1], ask, moment)]
""",
        },
        """
from services.router.settings import RouterSettings
from shared.placement.policies import POLICIES
assert RouterSettings(policy="last").policy == "last" and POLICIES["last"].__module__.endswith(".last")
""",
    ),
    "an agent, a profile": (
        1,
        {
            "shared/agents/built_in.py": (
                "AGENTS: Mapping[str, Agent] = {\n",
                'AGENTS: Mapping[str, Agent] = {\n    "spare": _agent("Spare.", "Be calm.", "code"),\n',
            )
        },
        """
from shared.agents.table import Declarations
assert "spare" in Declarations().names("agent")
""",
    ),
    "a setting": (
        1,
        {
            "services/critic/settings.py": (
                "    commit_seconds:",
                '    spare_seconds: PositiveSeconds = 1.0\n    """Spare."""\n    commit_seconds:',
            )
        },
        """
import os
from infra.schemas.generate import write
from services.critic.settings import CriticSettings
os.environ["TUTTI_CRITIC__SPARE_SECONDS"] = "2"
assert CriticSettings().spare_seconds == 2
assert write(pathlib.Path(".")) == ["helm/tutti/values.schema.json", "schemas/settings.md"]
""",
    ),
    "a retry rule": (
        1,
        {"shared/scheduling/retry.py": ("K.DEADLINE: Disposition.NEVER", "K.DEADLINE: Disposition.ANYWHERE")},
        """
from shared.contracts.failure import FailureKind
from shared.scheduling.retry import DISPOSITION, Disposition
assert DISPOSITION[FailureKind.DEADLINE] is Disposition.ANYWHERE
""",
    ),
}


@pytest.fixture
def product(tmp_path: Path) -> Path:
    """A copy of what is shipped."""
    for folder in ("services", "shared", "infra", "schemas", "helm"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__", "lab", "decisions"))
    shutil.copy(ROOT / "README.md", tmp_path)
    return tmp_path


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_takes_as_many_files_as_the_table_says(change: str, product: Path) -> None:
    """No edit beside these is needed for it to work."""
    most, files, proof = CHANGES[change]
    assert len(files) <= most == counted(change)
    for name, edit in files.items():
        file = product / name
        if isinstance(edit, str):
            file.parent.mkdir(exist_ok=True)
            file.write_text(edit)
        else:
            text = file.read_text()
            assert text.count(edit[0]) == 1, f"{name} has changed: {edit[0]!r} is not there once"
            file.write_text(text.replace(*edit))
    done = subprocess.run(
        [sys.executable, "-c", "import pathlib\n" + proof],
        cwd=product,
        env={"PYTHONPATH": str(product)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_table_marks_what_is_tried() -> None:
    """And no other row."""
    assert set(re.findall(r"^\| (.+) ✓ \|", (ROOT / "ARCHITECTURE.md").read_text(), re.MULTILINE)) == set(CHANGES)


def counted(change: str) -> int:
    """What ARCHITECTURE says of it: the number at the begin of the row's second cell."""
    [files] = re.findall(rf"^\| {re.escape(change)} ✓ \| (\d+)\b", (ROOT / "ARCHITECTURE.md").read_text(), re.MULTILINE)
    return int(files)
