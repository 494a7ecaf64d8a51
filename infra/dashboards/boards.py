"""What the Grafana dashboards show: panels with their expressions. Pure; `render` makes Grafana's JSON of them.

Tests parse every expression by Prometheus's own grammar and hold its metrics and labels against those that are declared.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

Kind = Literal["timeseries", "stat", "bargauge"]
RATE = "$__rate_interval"
"""Grafana's own: at least four scrapes."""


class Panel(NamedTuple):
    """`shows`: legend → expression. `unit`: one of Grafana's. `width` of 24."""

    title: str
    unit: str
    shows: dict[str, str]
    about: str = ""
    kind: Kind = "timeseries"
    width: int = 8
    stacked: bool = False


class Board(NamedTuple):
    """`uid` is its name for links."""

    uid: str
    title: str
    panels: tuple[Panel, ...]


def rate(metric: str, by: str = "", where: str = "") -> str:
    """Per second, summed over processes."""
    grouped = f"sum by ({by}) " if by else "sum"
    return f"{grouped}(rate({metric}{{{where}}}[{RATE}]))" if where else f"{grouped}(rate({metric}[{RATE}]))"


def share(metric: str, where: str, by: str = "") -> str:
    """What part of it is so."""
    return f"{rate(metric, by, where)} / {rate(metric, by)}"


def mean(histogram: str, by: str) -> str:
    """Of what was observed."""
    return f"{rate(histogram + '_sum', by)} / {rate(histogram + '_count', by)}"


def hourly(metric: str, by: str) -> str:
    """How many in the last hour."""
    return f"sum by ({by}) (increase({metric}[1h]))"


def quantile(share: float, metric: str, by: str = "") -> str:
    """Of a histogram over all processes."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, sum by ({labels}) (rate({metric}_bucket[{RATE}])))"


_LABELS = "tutti_cache_labels_total"

OVERVIEW = Board(
    "tutti-overview",
    "tutti: overview",
    (
        Panel("Jobs accepted", "reqps", {"": rate("tutti_jobs_accepted_total")}, kind="stat", width=4),
        Panel("Jobs ended", "reqps", {"": rate("tutti_jobs_settled_total")}, kind="stat", width=4),
        Panel("Succeeded", "percentunit", {"": share("tutti_jobs_settled_total", 'status="succeeded"')}, kind="stat", width=4),
        Panel("Nodes", "none", {"": "max(tutti_nodes_live)"}, "As routers hear of them.", "stat", 4),
        Panel(
            "Wait of an interactive job", "s", {"": 'max(tutti_backlog_wait_seconds{priority_class="interactive"})'}, kind="stat", width=4
        ),
        Panel("Dead letters in an hour", "none", {"": "sum(increase(tutti_dead_letters_total[1h]))"}, kind="stat", width=4),
        Panel("Jobs by how they ended", "reqps", {"{{status}}": rate("tutti_jobs_settled_total", "status")}, width=12, stacked=True),
        Panel(
            "From acceptance to the end",
            "s",
            {
                "median {{priority_class}}": quantile(0.5, "tutti_job_seconds", "priority_class"),
                "p95 {{priority_class}}": quantile(0.95, "tutti_job_seconds", "priority_class"),
            },
            width=12,
        ),
        Panel(
            "First token", "s", {"median": quantile(0.5, "tutti_first_token_seconds"), "p95": quantile(0.95, "tutti_first_token_seconds")}
        ),
        Panel("HTTP answers", "reqps", {"{{status}}": rate("tutti_http_requests_total", "status")}, stacked=True),
        Panel("Services that do not answer", "none", {"{{instance}}": 'up{job="tutti"} == 0'}, "Empty when all is well."),
    ),
)

FLEET = Board(
    "tutti-fleet",
    "tutti: fleet",
    (
        Panel("Slots in use", "percentunit", {"": "sum(tutti_slots_busy) / sum(tutti_slots)"}, kind="stat", width=6),
        Panel("Nodes that serve", "none", {"": "count(max by (node) (tutti_node_ready) == 1)"}, kind="stat", width=6),
        Panel("Nodes that do not", "none", {"{{node}}": "max by (node) (tutti_node_ready) == 0"}, kind="stat", width=12),
        Panel("Slots of each node", "none", {"{{node}}": "max by (node) (tutti_node_slots)"}, kind="bargauge"),
        Panel("Memory of each node", "bytes", {"{{node}} {{kind}}": "max by (node, kind) (tutti_node_memory_bytes)"}, kind="bargauge"),
        Panel("Inferences running", "none", {"{{instance}}": "sum by (instance) (tutti_slots_busy)"}, stacked=True),
        Panel("Model calls", "reqps", {"{{model}} {{outcome}}": rate("tutti_model_seconds_count", "model, outcome")}, width=12),
        Panel("A model call", "s", {"p95 {{model}}": quantile(0.95, "tutti_model_seconds", "model")}, width=12),
        Panel("Tokens", "none", {"{{model}} {{kind}}": rate("tutti_tokens_total", "model, kind")}, "A second.", width=12),
        Panel(
            "Where the time goes",
            "s",
            {
                "{{model}} {{stage}}": mean("tutti_usage_stage_seconds", "model, stage"),
            },
            "Mean of queue, load, prefill and decode of the answers that counted.",
            width=12,
        ),
        Panel("Mailbox", "none", {"{{instance}}": "sum by (instance) (tutti_mailbox_waiting)"}, "Taken, and not begun."),
        Panel("Tools", "reqps", {"{{tool}} {{outcome}}": rate("tutti_tool_seconds_count", "tool, outcome")}),
        Panel("Cancel to closed stream", "s", {"p99": quantile(0.99, "tutti_cancel_seconds")}),
    ),
)

QUEUES = Board(
    "tutti-queues",
    "tutti: queues",
    (
        Panel("Jobs that have not ended", "none", {"{{priority_class}}": "max by (priority_class) (tutti_backlog_jobs)"}, stacked=True),
        Panel(
            "Wait of a new job",
            "s",
            {"{{priority_class}}": "max by (priority_class) (tutti_backlog_wait_seconds)"},
            "0 while it is not known.",
        ),
        Panel("Not yet read by planners", "none", {"{{priority_class}}": "max by (priority_class) (tutti_jobs_unread)"}, stacked=True),
        Panel("Steps that wait at routers", "none", {"{{priority_class}}": "sum by (priority_class) (tutti_steps_waiting)"}),
        Panel("Steps routed", "reqps", {"{{priority_class}}": rate("tutti_steps_routed_total", "priority_class")}),
        Panel("Given by planners themselves", "reqps", {"{{priority_class}}": rate("tutti_steps_given_total", "priority_class")}),
        Panel("From a step read to a step given", "s", {"p95 {{priority_class}}": quantile(0.95, "tutti_route_seconds", "priority_class")}),
        Panel("Without a node", "reqps", {"": rate("tutti_steps_unplaced_total")}, "No live node has what they need."),
        Panel("Raised by a near deadline", "reqps", {"{{priority_class}}": rate("tutti_steps_raised_total", "priority_class")}),
        Panel("Live jobs at planners", "none", {"{{instance}}": "sum by (instance) (tutti_live_jobs)"}),
        Panel("Callers that wait", "none", {"{{what}}": "sum by (what) (tutti_waiting_callers)"}),
        Panel(
            "Turned away",
            "reqps",
            {
                "by a key's limit: {{limit}}": rate("tutti_rate_limited_total", "limit"),
                "HTTP {{status}}": rate("tutti_http_requests_total", "status", 'status=~"429|503"'),
            },
        ),
        Panel("Delayed records, lateness", "s", {"p99": quantile(0.99, "tutti_delay_lateness_seconds")}),
        Panel("Take-overs", "none", {"{{cause}}": "sum by (cause) (increase(tutti_takeovers_total[5m]))"}, "In five minutes."),
        Panel("Replay of a home", "s", {"p95": quantile(0.95, "tutti_replay_seconds")}),
    ),
)

COST = Board(
    "tutti-cost",
    "tutti: cost",
    (
        Panel(
            "Cost today",
            "none",
            {"{{tenant}}": "sum by (tenant) (increase(tutti_usage_cost_total[1d]))"},
            "Of the last 24 hours.",
            "bargauge",
            12,
        ),
        Panel("Cost an hour", "none", {"{{tenant}}": "3600 * " + rate("tutti_usage_cost_total", "tenant")}, width=12, stacked=True),
        Panel(
            "Tokens by tenant",
            "none",
            {"{{tenant}}": rate("tutti_usage_tokens_total", "tenant", 'kind!="wasted"')},
            "A second.",
            stacked=True,
        ),
        Panel("Tokens by model", "none", {"{{model}}": rate("tutti_usage_model_tokens_total", "model")}, "A second.", stacked=True),
        Panel("Tokens by agent", "none", {"{{agent}}": rate("tutti_usage_model_tokens_total", "agent")}, "A second.", stacked=True),
        Panel(
            "Wasted",
            "percentunit",
            {
                "{{tenant}}": share("tutti_usage_tokens_total", 'kind="wasted"', "tenant"),
            },
            "Share of tokens whose attempt did not count.",
        ),
        Panel("Jobs by tenant", "reqps", {"{{tenant}}": rate("tutti_usage_jobs_total", "tenant")}, stacked=True),
        Panel(
            "Asked of the cache",
            "reqps",
            {"{{outcome}}": rate("tutti_cache_lookups_total", "outcome")},
            "Exact and semantic are hits.",
            width=12,
        ),
        Panel("Tokens that hits saved", "none", {"": rate("tutti_cache_tokens_saved_total")}, "A second.", width=12),
        Panel("Limits neared", "none", {"{{of}} {{limit}}": hourly("tutti_limits_neared_total", "of, limit")}, "In an hour."),
    ),
)

QUALITY = Board(
    "tutti-quality",
    "tutti: quality",
    (
        Panel(
            "Jobs that failed or expired",
            "percentunit",
            {
                "{{pattern}}": share("tutti_usage_jobs_total", 'status=~"failed|expired"', "pattern"),
            },
            width=12,
        ),
        Panel("Jobs of each pattern", "s", {"p95 {{pattern}}": quantile(0.95, "tutti_usage_job_seconds", "pattern")}, width=12),
        Panel(
            "Attempts without an answer",
            "reqps",
            {"{{model}} {{kind}}": rate("tutti_usage_attempts_failed_total", "model, kind")},
            width=12,
        ),
        Panel("Attempts after the first", "reqps", {"{{model}}": rate("tutti_usage_retries_total", "model")}, width=12),
        Panel(
            "Steps that failed for good",
            "reqps",
            {"{{agent}} {{model}}": rate("tutti_usage_steps_total", "agent, model", 'outcome="failed"')},
        ),
        Panel("Dead letters", "none", {"{{service}} {{code}}": hourly("tutti_dead_letters_total", "service, code")}, "In an hour."),
        Panel(
            "Records passed over",
            "none",
            {"{{service}} {{code}}": hourly("tutti_records_passed_over_total", "service, code")},
            "In an hour.",
        ),
        Panel(
            "Comparisons with a baseline",
            "reqps",
            {"{{what}}": rate("tutti_comparisons_total", "what")},
            "`tutti patterns report` judges them.",
        ),
        Panel(
            "Sink behind",
            "s",
            {"{{instance}}": "max by (instance) (tutti_sink_behind_seconds)"},
            "What these boards tell of usage is so old.",
        ),
        Panel(
            "False hits of the cache",
            "percentunit",
            {"": f"""{rate(_LABELS, "", 'served="hit",answer="wrong"')} / {rate(_LABELS, "", 'served="hit"')}"""},
            "Of those drawn to be asked nevertheless.",
        ),
        Panel("What policies did", "reqps", {"{{direction}} {{action}}": rate("tutti_policy_actions_total", "direction, action")}),
        Panel("Places in line, error", "percentunit", {"median {{priority_class}}": quantile(0.5, "tutti_place_error", "priority_class")}),
        Panel("Records that Kafka did not take", "none", {"{{service}}": hourly("tutti_send_failures_total", "service")}, "In an hour."),
    ),
)

BOARDS = (OVERVIEW, FLEET, QUEUES, COST, QUALITY)


def render(board: Board) -> dict[str, Any]:
    """Grafana's JSON, schema 39. Panels stand side by side as far as 24 columns go."""
    panels, x, y, tall = [], 0, 0, 0
    for number, panel in enumerate(board.panels, 1):
        height = 4 if panel.kind == "stat" else 8
        if x + panel.width > 24 or (tall and height != tall):
            x, y = 0, y + tall
        panels.append(_panel(panel, number, {"x": x, "y": y, "w": panel.width, "h": height}))
        x, tall = x + panel.width, height
    return {
        "uid": board.uid,
        "title": board.title,
        "tags": ["tutti"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {"list": [{"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"}]},
        "links": [{"type": "dashboards", "tags": ["tutti"], "title": "tutti", "asDropdown": False, "keepTime": True}],
        "panels": panels,
    }


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    source = {"type": "prometheus", "uid": "${source}"}
    custom = {"fillOpacity": 12, "lineWidth": 1, "showPoints": "never", "stacking": {"mode": "normal" if panel.stacked else "none"}}
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": source,
        "gridPos": place,
        "fieldConfig": {
            "defaults": {"unit": panel.unit, "min": 0, **({"custom": custom} if panel.kind == "timeseries" else {})},
            "overrides": [],
        },
        "targets": [
            {
                "refId": chr(65 + n),
                "datasource": source,
                "expr": expression,
                "legendFormat": legend or "__auto",
                "instant": panel.kind != "timeseries",
            }
            for n, (legend, expression) in enumerate(panel.shows.items())
        ],
        **({"options": {"legend": {"showLegend": bool(next(iter(panel.shows)))}}} if panel.kind == "timeseries" else {}),
    }
