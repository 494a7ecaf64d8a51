"""Lock files: only the wanted packages are taken, with all their hashes."""

from __future__ import annotations

from infra.native.embedded import packages
from infra.native.wheels import pinned

LOCK = """\
# made by a tool
alpha==1.0 \\
    --hash=sha256:aa
    # via beta
model==2.0 \\
    --hash=sha256:bb \\
    --hash=sha256:cc
    # via project
model-part1==2.0 \\
    --hash=sha256:dd
modelling==3.0 \\
    --hash=sha256:ee
"""


def test_a_package_and_its_parts_are_taken_and_nothing_else() -> None:
    """`model` and `model-part1`, not `modelling`; comments are left out."""
    assert list(pinned(LOCK, ("model",))) == [
        "model==2.0 \\",
        "    --hash=sha256:bb \\",
        "    --hash=sha256:cc",
        "model-part1==2.0 \\",
        "    --hash=sha256:dd",
    ]


def test_the_project_pins_engine_and_model() -> None:
    """The lock file of the embedded extra names both; a rename there would break the node of bare machines."""
    lock = packages.LOCK.read_text()
    assert any(line.startswith("xllamacpp==") for line in pinned(lock, (packages.ENGINE,)))
    assert sum(line.startswith("gemma3") for line in pinned(lock, (packages.MODEL_PACKAGE,))) == 5
