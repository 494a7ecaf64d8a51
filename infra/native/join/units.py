"""A joined worker that survives reboots: a systemd unit (the user's own, or root's), or a launchd agent. Texts are pure, the rest asks the
system's programs. A user's unit runs at boot only for who lingers (`loginctl enable-linger`, asked for here); an agent from the login on.
"""

from __future__ import annotations

import os
import plistlib
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from infra.native.errors import NativeError
from infra.native.join.worker import Joined, write_private
from infra.native.paths import REPOSITORY

SYSTEMD = Path("/run/systemd/system")
"""There where systemd has started the machine."""
STOP_SECONDS = 45
"""A little more than the worker's grace period (30 s)."""
_ASK_SECONDS = 60.0
_COMMAND = (sys.executable, "-m", "services.worker")
_BY_SECCOMP = (
    "NoNewPrivileges=yes",
    "LockPersonality=yes",
    "RestrictRealtime=yes",
    "RestrictSUIDSGID=yes",
    "RestrictNamespaces=yes",
    "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK",
    "SystemCallArchitectures=native",
)
"""What a user's own manager can do, too."""
_BY_ROOT = (
    "CapabilityBoundingSet=",
    "PrivateTmp=yes",
    "ProtectSystem=strict",
    "ProtectHome=read-only",
    "ProtectKernelTunables=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelLogs=yes",
    "ProtectControlGroups=yes",
    "ProtectClock=yes",
    "ProtectHostname=yes",
)
Kind = Literal["user", "system", "launchd"]


def systemd_unit(joined: Joined, kind: Kind) -> str:
    """The unit's text. Wrong settings (exit code 78) are wrong again: it is not started again then."""
    hardening = (*_BY_SECCOMP, *(_BY_ROOT if kind == "system" else ()))
    return "\n".join(
        (
            "[Unit]",
            f"Description=tutti worker: node {joined.node} of {_plain(joined.cluster)}",
            "After=network-online.target ollama.service" if kind == "system" else "After=default.target",
            *(("Wants=network-online.target",) if kind == "system" else ()),
            "StartLimitIntervalSec=0",
            "",
            "[Service]",
            "Type=exec",
            f"ExecStart={' '.join(map(_word, _COMMAND))}",
            f"Environment={_word(f'PYTHONPATH={REPOSITORY}')}",
            f"EnvironmentFile={_plain(str(joined.settings_file))}",
            f"WorkingDirectory={_plain(str(joined.home.root))}",
            "Restart=always",
            "RestartSec=2",
            "RestartPreventExitStatus=78",
            f"TimeoutStopSec={STOP_SECONDS}",
            *hardening,
            "",
            "[Install]",
            f"WantedBy={'multi-user.target' if kind == 'system' else 'default.target'}",
            "",
        )
    )


def _plain(text: str) -> str:
    """In a unit a percent sign begins something else, and a line ends it."""
    return " ".join(text.split("\n")).replace("%", "%%")


def _word(text: str) -> str:
    return '"' + _plain(text).replace("\\", "\\\\").replace('"', '\\"') + '"'


def launchd_plist(joined: Joined) -> bytes:
    """The agent's description, with all settings in it: launchd reads no file of them."""
    log = str(joined.home.log("worker"))
    described = {
        "Label": name_of(joined),
        "ProgramArguments": list(_COMMAND),
        "EnvironmentVariables": {"PYTHONPATH": str(REPOSITORY), **joined.environment},
        "WorkingDirectory": str(joined.home.root),
        "RunAtLoad": True,
        "KeepAlive": True,
        "ThrottleInterval": 10,
        "ExitTimeOut": STOP_SECONDS,
        "ProcessType": "Background",
        "StandardOutPath": log,
        "StandardErrorPath": log,
    }
    return plistlib.dumps(described)


def name_of(joined: Joined) -> str:
    """Of unit or agent; nodes of one machine have one each."""
    return f"tutti-node-{joined.node}".replace(":", "-")


def kind_here() -> Kind:
    """What starts services on this machine. Raises NativeError."""
    if sys.platform == "darwin":
        return "launchd"
    if SYSTEMD.is_dir() and shutil.which("systemctl"):
        return "system" if os.geteuid() == 0 else "user"
    raise NativeError("--install needs systemd or launchd, and neither runs this machine; join without it, and again after a reboot")


@dataclass(frozen=True, slots=True)
class Unit:
    """What is installed for one node."""

    joined: Joined
    kind: Kind

    @property
    def path(self) -> Path:
        name = name_of(self.joined)
        match self.kind:
            case "launchd":
                return Path("~/Library/LaunchAgents").expanduser() / f"{name}.plist"
            case "user":
                return Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "systemd" / "user" / f"{name}.service"
        return Path("/etc/systemd/system") / f"{name}.service"

    def install(self) -> list[str]:
        """Write it, have it started now and with the machine; returns what a person should know. Raises NativeError."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.kind == "launchd":
            write_private(self.path, launchd_plist(self.joined).decode())
            _asked(["launchctl", "bootstrap", f"gui/{os.getuid()}", str(self.path)])
            return ["it runs from your login on, not before"]
        write_private(self.path, systemd_unit(self.joined, self.kind))
        _asked(self._systemctl("daemon-reload"))
        _asked(self._systemctl("enable", "--now", self.path.name))
        if self.kind == "user" and not _said(["loginctl", "enable-linger"]):
            return ["it runs from your login on; from the machine's start if an administrator allows it: sudo loginctl enable-linger $USER"]
        return []

    def remove(self) -> bool:
        """Stop it, in order, and take it away; whether there was one."""
        if not self.path.exists():
            return False
        if self.kind == "launchd":
            _said(["launchctl", "bootout", f"gui/{os.getuid()}/{name_of(self.joined)}"])
        else:
            _said(self._systemctl("disable", "--now", self.path.name))
        self.path.unlink(missing_ok=True)
        if self.kind != "launchd":
            _said(self._systemctl("daemon-reload"))
        return True

    def _systemctl(self, *words: str) -> list[str]:
        return ["systemctl", *(["--user"] if self.kind == "user" else []), *words]


def installed(joined: Joined) -> Unit | None:
    """What was installed for this node, whoever looks."""
    kinds: Mapping[Kind, bool] = {"launchd": sys.platform == "darwin", "user": True, "system": os.geteuid() == 0}
    units = [Unit(joined, kind) for kind, possible in kinds.items() if possible]
    return next((unit for unit in units if unit.path.exists()), None)


def _said(command: Sequence[str]) -> bool:
    try:
        return _run(command).returncode == 0
    except (OSError, subprocess.SubprocessError):
        return False


def _asked(command: Sequence[str]) -> None:
    try:
        done = _run(command)
    except (OSError, subprocess.SubprocessError) as error:
        raise NativeError(f"`{shlex.join(command)}` could not be run: {error}") from None
    if done.returncode != 0:
        raise NativeError(f"`{shlex.join(command)}` failed: {' '.join(done.stderr.split())[:300] or 'it does not say why'}")


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(command), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_ASK_SECONDS, check=False)
