"""Rules: which callbacks are taken, and by which secrets they are signed. Asked at the door, and again at each delivery.

[acme]                                     # TOML, or the same as JSON: tenant → name → secret
default = "whsec_…base64 of 24 to 64 bytes…"
billing = ["whsec_…new…", "whsec_…old…"]   # while a receiver changes: signed by both
"""

from __future__ import annotations

import json
import tomllib
from base64 import b64decode
from collections.abc import Mapping
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from services.ingress.settings import CallbackSettings
from shared.addresses import Network, NotAllowed, Parts, allows, is_address, networks_of, parts_of
from shared.contracts.base import Tenant
from shared.contracts.callback import Callback, SecretName
from shared.errors import ConfigurationError, InvalidInput

Secrets = Mapping[str, Mapping[str, tuple[bytes, ...]]]
_FILE: TypeAdapter[dict[str, dict[str, str | list[str]]]] = TypeAdapter(dict[Tenant, dict[SecretName, str | list[str]]])
_PREFIX = "whsec_"
_KEY_BYTES = range(24, 65)
_MOST_KEYS = 4
_OFF = "callbacks are switched off here (TUTTI_INGRESS__CALLBACKS__SECRETS_FILE and ..__HOSTS)"


def _refused(message: str) -> InvalidInput:
    """This callback is not taken here."""
    return InvalidInput(message, code="callback_not_allowed", param="callback")


class CallbackRules:
    """Of one instance. Without secrets no callback is taken."""

    def __init__(self, settings: CallbackSettings, secrets: Secrets) -> None:
        self._secrets = secrets
        self._hosts = tuple(each.strip().lower() for each in settings.hosts.split(",") if each.strip())
        self._networks: tuple[Network, ...] = networks_of(settings.networks)
        self._ports, self._schemes = frozenset(settings.ports), {"https", "http"} if settings.http else {"https"}

    @property
    def any(self) -> bool:
        """Whether any callback is taken."""
        return bool(self._secrets and self._hosts)

    def check(self, callback: Callback | None, tenant: str) -> Parts | None:
        """Where it leads; None of no callback. Raises InvalidInput, which does not quote the address: it may hold a token."""
        if callback is None:
            return None
        if not self.any:
            raise _refused(_OFF)
        if not self.secrets_of(callback, tenant):
            raise _refused("the tenant has no secret of this name; the operator's secrets file names them")
        try:
            parts = parts_of(callback.url)
        except NotAllowed as error:
            raise _refused(f"the callback's address is not allowed: {error}") from None
        if parts.scheme not in self._schemes or parts.port not in self._ports:
            raise _refused(f"a callback's address is {' or '.join(sorted(self._schemes))}, at a port that the operator allows")
        if not any(self._covers(entry, parts.host) for entry in self._hosts):
            raise _refused("the callback's host is none that the operator allows")
        if is_address(parts.host) and not self.leads_to(parts.host):
            raise _refused("the callback's address is not public")
        return parts

    @staticmethod
    def _covers(entry: str, host: str) -> bool:
        """`*` is every name, `.example.org` every name below that one; an address is covered by itself alone."""
        return entry == host or (not is_address(host) and (entry == "*" or (entry.startswith(".") and host.endswith(entry))))

    def leads_to(self, address: str) -> bool:
        """Whether a connection may be made to it."""
        return allows(address, self._networks)

    def secrets_of(self, callback: Callback, tenant: str) -> tuple[bytes, ...]:
        """The keys, newest first; none where it has no such secret."""
        return self._secrets.get(tenant, {}).get(callback.secret, ())


NO_CALLBACKS = CallbackRules(CallbackSettings(), {})


def rules_of(settings: CallbackSettings) -> CallbackRules:
    """With the secrets of the file. Raises ConfigurationError, which quotes nothing of it."""
    return CallbackRules(settings, _load(settings.secrets_file) if settings.secrets_file else {})


def _load(file_name: str) -> Secrets:
    path = Path(file_name)
    try:
        text = path.read_text(encoding="utf-8")
        found = _FILE.validate_python(json.loads(text) if path.suffix == ".json" else tomllib.loads(text))
        return {tenant: {name: _keys(given) for name, given in named.items()} for tenant, named in found.items()}
    except OSError as error:
        raise ConfigurationError(f"the secrets file {path} cannot be read: {error.strerror}") from None
    except ValidationError:
        raise ConfigurationError(f"the secrets file {path} does not hold tenants with named secrets") from None
    except ValueError:
        raise ConfigurationError(f"the secrets file {path} is no TOML or JSON, or holds a secret that is not {_PREFIX}<base64>") from None


def _keys(given: str | list[str]) -> tuple[bytes, ...]:
    found = tuple(b64decode(text.removeprefix(_PREFIX), validate=True) for text in ([given] if isinstance(given, str) else given))
    if not 0 < len(found) <= _MOST_KEYS or not all(len(key) in _KEY_BYTES for key in found):
        raise ValueError("not as many secrets, or not as long, as they may be")
    return found
