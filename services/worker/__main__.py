"""`python -m services.worker`: one worker in a process of its own; of a file of tools, all its workers."""

from __future__ import annotations

import sys

from services.worker.tools.nodes import builds
from shared.errors import ConfigurationError
from shared.service.process import run_process

try:
    found = builds()
except ConfigurationError as error:
    from shared.service.lifecycle import EXIT_SETTINGS

    sys.stderr.write(f"tutti worker: wrong settings: {error.message}\n")
    raise SystemExit(EXIT_SETTINGS) from None
raise SystemExit(run_process(found))
