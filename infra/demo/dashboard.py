"""A picture of the dashboard, by a Chromium of this machine, where there is one."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from infra.native.waiting import now, seconds_since

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_READING_SECONDS, _DRAWING_SECONDS = 10.0, 60.0


def picture(address: str, file: Path) -> Path | None:
    """The overview of the page at `address` as PNG; None where there is no browser, or it does not draw."""
    browser = next((found for name in _BROWSERS if (found := shutil.which(name)) is not None), None)
    if browser is None or not _read(address):
        return None
    file.unlink(missing_ok=True)
    options = ["--headless=new", "--hide-scrollbars", "--window-size=1360,900", "--virtual-time-budget=4000", f"--screenshot={file}"]
    options += ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []  # Chromium's own wish
    try:
        subprocess.run([browser, *options, f"{address}/"], capture_output=True, timeout=_DRAWING_SECONDS, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return None
    return file if file.is_file() else None


def _read(address: str) -> bool:
    """Look until the sink has read what there is: it begins when somebody looks."""
    start = now()
    try:
        with urlopen(f"{address}/page/stream", timeout=_READING_SECONDS) as stream:  # noqa: S310
            for line in stream:
                if b'"ready":true' in line:
                    return True
                if seconds_since(start) > _READING_SECONDS:
                    break
    except (URLError, TimeoutError):
        pass
    return False
