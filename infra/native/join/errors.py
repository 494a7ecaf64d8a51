"""Why a machine did not become a node. Every message says what to do.

JoinError
├── NoCluster          nobody on this network announces a cluster
├── SeveralClusters    choose one by its name
├── WrongToken         no token, a damaged one, one whose time is over, or one that this cluster's own settings cannot make
├── KafkaAway          the brokers do not answer, or do not let us in
├── OtherCluster       what lies there is no tutti, or one that this version does not fit
├── NodeTaken          another machine works under this node's name
├── NoModels           no Ollama beside us
├── AlreadyJoined      this folder holds a node already
├── NotJoined          it holds none
└── NoServiceManager   neither systemd nor launchd starts what is installed here
"""

from __future__ import annotations

from infra.native.errors import NativeError
from shared.errors import ConfigurationError, Conflict, InvalidInput, LogUnavailable, NotFound


class JoinError(NativeError):
    """The machine did not become a node."""

    code = "join"


class NoCluster(JoinError, NotFound):
    """No cluster announces itself on this network."""

    code = "no_cluster"


class SeveralClusters(JoinError, InvalidInput):
    """Several clusters announce themselves on this network."""

    code = "several_clusters"


class WrongToken(JoinError, InvalidInput):
    """The token does not hold."""

    code = "wrong_token"


class KafkaAway(JoinError, LogUnavailable):
    """Kafka does not answer."""

    code = "kafka_away"


class OtherCluster(JoinError, ConfigurationError):
    """This version does not fit what lies in that Kafka."""

    code = "other_cluster"


class NodeTaken(JoinError, Conflict):
    """Another machine works under this node's name."""

    code = "node_taken"


class NoModels(JoinError):
    """No Ollama answers beside this worker."""

    code = "no_models"


class AlreadyJoined(JoinError, Conflict):
    """This machine is a node already."""

    code = "already_joined"


class NotJoined(JoinError, NotFound):
    """This machine is no node."""

    code = "not_joined"


class NoServiceManager(JoinError):
    """Nothing here starts what is installed."""

    code = "no_service_manager"
