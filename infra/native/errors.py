"""What can go wrong while components are started. Every message says what to do.

NativeError           among others: a file cannot be written, another command is at work in this directory
├── MissingTool       a program is not installed; names it and the command that installs it
├── PortTaken         another process listens on a port that a component needs
└── StartFailed       the component ended or did not become healthy in time; carries the end of its log
"""

from __future__ import annotations

from shared.errors import TuttiError


class NativeError(TuttiError):
    """A component could not be started."""

    code = "native"


class MissingTool(NativeError):
    """A program that a component needs is not installed."""

    code = "missing_tool"


class PortTaken(NativeError):
    """A port that a component needs is in use."""

    code = "port_taken"


class StartFailed(NativeError):
    """The component did not become healthy."""

    code = "start_failed"
