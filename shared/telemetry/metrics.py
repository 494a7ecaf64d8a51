"""Every metric, declared once with its meaning. A misspelt name is a type error. Labels have few values by construction.

Durations are seconds, sizes bytes. `docs()` lists them for `schemas/metrics.md`.
"""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.metrics import MetricWrapperBase

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for every counter, which nobody reads

_LATENCY = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_ERRORS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 2, 5, 10)

# Every service
DEAD_LETTERS = Counter("tutti_dead_letters", "Records sent to dead-letters.", ["service", "code"])
RECORDS_PASSED_OVER = Counter("tutti_records_passed_over", "Records of topics that many follow, not folded.", ["service", "code"])
STOPPED_PARTITIONS = Gauge(
    "tutti_stopped_partitions", "Partitions that stand still: too many of their records were dead-lettered.", ["service"]
)
SEND_FAILURES = Counter("tutti_send_failures", "Records that Kafka did not acknowledge.", ["service"])
MESSAGES_GIVEN_UP = Counter(
    "tutti_messages_given_up", "Records that can never be sent: too large, or for a topic or partition that is not there.", ["service"]
)
TOPIC_CHANGES = Counter(
    "tutti_topic_changes", "Topics deleted, made anew or grown, logs that went back, records deleted unread.", ["service", "change"]
)
RECORDS_DELETED_UNREAD = Counter(
    "tutti_records_deleted_unread", "Offsets that retention had passed before this service came to them.", ["service"]
)
TOPICS_MISSING = Gauge("tutti_topics_missing", "Topics that this service reads or writes and that do not exist.", ["service"])
TOPICS_DIFFERING = Gauge("tutti_topics_differing", "Topics that are configured otherwise than the registry wants.")
BLOB_BYTES = Counter("tutti_blob_bytes", "Bytes of bodies above the inline bound, written and read.", ["service", "way"])
CERTIFICATE_EXPIRES_TIMESTAMP_SECONDS = Gauge(
    "tutti_certificate_expires_timestamp_seconds", "When a certificate of this process ends, in seconds since 1970.", ["of"]
)
REBALANCES = Counter("tutti_rebalances", "Assignments received.", ["service"])

# Planner
JOBS_ACCEPTED = Counter("tutti_jobs_accepted", "Jobs accepted into history.", ["priority_class", "pattern"])
JOBS_SETTLED = Counter("tutti_jobs_settled", "Jobs ended.", ["status", "priority_class"])
JOB_SECONDS = Histogram("tutti_job_seconds", "From acceptance to the settle event.", ["priority_class"], buckets=_LATENCY)
LIVE_JOBS = Gauge("tutti_live_jobs", "Live jobs in memory.")
EVENTS_APPENDED = Counter("tutti_events_appended", "Events acknowledged.")
ROUND_SECONDS = Histogram("tutti_round_seconds", "One append of a round, sent to acknowledged.", buckets=_LATENCY)
ROUND_EVENTS = Histogram("tutti_round_events", "Events a round.", buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000))
STEPS_ASKED = Counter("tutti_steps_asked", "Steps asked for.", ["capability"])
HEDGES = Counter("tutti_hedges", "Second attempts beside slow ones: begun; won: it answered first; lost: the slow one did.", ["outcome"])
STEPS_GIVEN = Counter("tutti_steps_given", "Steps that the planner wrote into a mailbox itself.", ["priority_class"])
ATTEMPTS_FAILED = Counter("tutti_attempts_failed", "Attempts that ended without an answer.", ["kind"])
WASTED_OUTCOMES = Counter("tutti_wasted_outcomes", "Outcomes counted as wasted work.")
TAKEOVERS = Counter("tutti_takeovers", "Partitions taken, by cause.", ["cause"])
REPLAY_SECONDS = Histogram("tutti_replay_seconds", "From PlannerStarted acknowledged to driving on.", buckets=_LATENCY)
LIMITS_NEARED = Counter("tutti_limits_neared", "Soft limits reached: of a job, or of a tenant on a day.", ["of", "limit"])
COMPARISONS = Counter(
    "tutti_comparisons", "Jobs of the compared share whose comparison was sent, or that no judge could read: left out.", ["what"]
)
LOG_TRUNCATIONS = Counter("tutti_log_truncations", "Appends acknowledged at a lower offset than expected: an alarm.")
JOBS_HELD_BACK = Gauge("tutti_jobs_held_back", "Records of jobs.* that wait behind an open foreign transaction.", ["priority_class"])

# Router
STEPS_RAISED = Counter("tutti_steps_raised", "Waiting steps that a near deadline moved to this class.", ["priority_class"])
STEPS_ROUTED = Counter("tutti_steps_routed", "Steps given to a node.", ["priority_class"])
STEPS_UNPLACED = Counter("tutti_steps_unplaced", "Steps sent to delay because no live node passes the filters.", ["capability"])
STEPS_WAITING = Gauge("tutti_steps_waiting", "Steps in the router's windows.", ["capability", "priority_class"])
ROUTE_SECONDS = Histogram("tutti_route_seconds", "From reading a step to giving it to a node.", ["priority_class"], buckets=_LATENCY)
NODES_LIVE = Gauge("tutti_nodes_live", "Nodes that announce credits.")

# Worker
SLOTS = Gauge("tutti_slots", "Concurrent inferences of this node.")
SLOTS_BUSY = Gauge("tutti_slots_busy", "Inferences running.")
MAILBOX_WAITING = Gauge("tutti_mailbox_waiting", "Steps taken from the mailbox and not started.")
MODEL_SECONDS = Histogram("tutti_model_seconds", "One model call.", ["model", "outcome"], buckets=_LATENCY)
FIRST_TOKEN_SECONDS = Histogram("tutti_first_token_seconds", "Model call to first token.", ["model"], buckets=_LATENCY)
START_ERROR = Histogram(
    "tutti_start_error",
    "Of first tokens: how wrong the instant was that the choice of the node had foreseen, as a part of the real wait.",
    ["priority_class"],
    buckets=_ERRORS,
)
BREAKERS_OPEN = Gauge("tutti_breakers_open", "Models of this node, and the node itself, that are left alone since their calls fail.")
TOOL_SECONDS = Histogram("tutti_tool_seconds", "One call of a server-side tool; its outcome.", ["tool", "outcome"], buckets=_LATENCY)
TOKENS = Counter("tutti_tokens", "Tokens reported by nodes.", ["model", "kind"])
CANCEL_SECONDS = Histogram("tutti_cancel_seconds", "Stop message read to stream closed.", buckets=_LATENCY)
CHUNK_RECORDS = Counter("tutti_chunk_records", "Reply records with chunks.")

# Ingress
HTTP_REQUESTS = Counter("tutti_http_requests", "HTTP requests.", ["route", "status"])
HTTP_SECONDS = Histogram("tutti_http_seconds", "HTTP requests, whole.", ["route"], buckets=_LATENCY)
WAITING_CALLERS = Gauge("tutti_waiting_callers", "Who waits here: for an answer, for a job's end, or reading events.", ["what"])
REPLIES_UNKNOWN = Counter("tutti_replies_unknown", "Replies whose correlation nobody waits for.")
BACKLOG_JOBS = Gauge("tutti_backlog_jobs", "Jobs that have not ended, as the admission estimate counts them.", ["priority_class"])
BACKLOG_WAIT_SECONDS = Gauge("tutti_backlog_wait_seconds", "Predicted wait of a new job; 0 while unknown.", ["priority_class"])
PLACE_ERROR = Histogram(
    "tutti_place_error",
    "Of starts that somebody was told of before: how wrong that was, as a part of the real wait.",
    ["priority_class"],
    buckets=_ERRORS,
)
JOBS_UNREAD = Gauge("tutti_jobs_unread", "Committed records of jobs.* that planners have not taken; for autoscaling.", ["priority_class"])
RATE_LIMITED = Counter("tutti_rate_limited", "Requests refused by a key's limit.", ["limit"])
BUCKET_STORE_ERRORS = Counter("tutti_bucket_store_errors", "Calls of the shared rate buckets that failed; the instance's own count then.")
STATUS_STORE_ERRORS = Counter("tutti_status_store_errors", "Status store calls that failed; the status is then read from events.")
CALLBACKS = Counter("tutti_callbacks", "Deliveries: delivered, failed (tried again), deferred (no room, not tried), dead.", ["outcome"])
CALLBACK_SECONDS = Histogram("tutti_callback_seconds", "One try of a delivery.", buckets=_LATENCY)

# Delay
DELAYED_FORWARDED = Counter("tutti_delayed_forwarded", "Delayed records sent on.", ["tier"])
DELAY_LATENESS_SECONDS = Histogram("tutti_delay_lateness_seconds", "Forwarded minus due.", buckets=_LATENCY)
JOBS_FORWARDED = Counter("tutti_jobs_forwarded", "Records on jobs.* that lay elsewhere than at their id's home, and were sent on.")
SCHEDULE_RUNS_TAKEN = Counter("tutti_schedule_runs_taken", "Runs of schedules not begun: another job has the run's id.")
CANCELS_FORGOTTEN = Counter("tutti_cancels_forgotten", "Cancels of unknown jobs that newer ones pushed out before their job came.")
DELAYS_HELD = Gauge("tutti_delays_held", "Records held in memory in their last second.")

# Critic
CRITIQUES = Counter("tutti_critiques", "Texts judged: what each check came to; `-`: a critique that failed.", ["check", "verdict"])
CRITIQUE_SECONDS = Histogram("tutti_critique_seconds", "The checks of one critique.", buckets=_LATENCY)
POLICY_ACTIONS = Counter("tutti_policy_actions", "What tenants' policies did in jobs that ended.", ["direction", "action"])
# Cache
CACHE_LOOKUPS = Counter(
    "tutti_cache_lookups", "Lookups answered: exact and semantic are hits; follow: an equal step is being answered.", ["outcome"]
)
CACHE_UNANSWERED = Counter(
    "tutti_cache_unanswered",
    "Steps that were sent since the cache said nothing in time, at once or after they had followed another one.",
    ["after"],
)
CACHE_FILLS = Counter("tutti_cache_fills", "Answers that were to be kept; away: the store was.", ["outcome"])
CACHE_TOKENS_SAVED = Counter("tutti_cache_tokens_saved", "Tokens that hits would have used.")
CACHE_MEANINGS = Counter(
    "tutti_cache_meanings", "What came of semantic lookups; veto_*: what the nearest entry's question differs in.", ["outcome"]
)
CACHE_LABELS = Counter(
    "tutti_cache_labels",
    "Real answers compared with the entry that was near: hit: it would have been served, so wrong is a false hit.",
    ["served", "answer"],
)
CACHE_EMBED_SECONDS = Histogram("tutti_cache_embed_seconds", "One question embedded.", buckets=_LATENCY)
CACHE_STORE_SECONDS = Histogram("tutti_cache_store_seconds", "One call of the store.", ["call"], buckets=_LATENCY)
CACHE_STORE_ERRORS = Counter("tutti_cache_store_errors", "Calls of the store that failed or took too long.")

# Sink
SINK_EVENTS = Counter("tutti_sink_events", "Valid events folded.")
SINK_WRITE_SECONDS = Histogram("tutti_sink_write_seconds", "One batch written to the store.", buckets=_LATENCY)
SINK_STORE_ERRORS = Counter("tutti_sink_store_errors", "Calls of the store that failed; they are made again.")
SINK_REFUSED = Counter("tutti_sink_refused", "Documents that the store refused for what they hold.")
SINK_TRACES = Counter("tutti_sink_traces", "Ended jobs, by whether their spans reached the collector.", ["what"])
SINK_BEHIND_SECONDS = Gauge("tutti_sink_behind_seconds", "Age of the newest event folded, while events wait; else 0.")
USAGE_JOBS = Counter("tutti_usage_jobs", "Jobs ended.", ["tenant", "pattern", "priority_class", "status"])
USAGE_JOB_SECONDS = Histogram("tutti_usage_job_seconds", "Jobs, whole.", ["pattern", "priority_class"], buckets=_LATENCY)
USAGE_TOKENS = Counter("tutti_usage_tokens", "Tokens of jobs that ended; wasted: of attempts that did not count.", ["tenant", "kind"])
USAGE_COST = Counter("tutti_usage_cost", "Cost of jobs that ended, in the cluster's currency.", ["tenant"])
USAGE_STEPS = Counter("tutti_usage_steps", "Steps that ended.", ["agent", "model", "outcome"])
USAGE_MODEL_TOKENS = Counter("tutti_usage_model_tokens", "Tokens of accepted answers.", ["agent", "model"])
USAGE_MODEL_WASTED = Counter("tutti_usage_model_wasted", "Tokens of attempts that did not count.", ["agent", "model"])
USAGE_MODEL_COST = Counter("tutti_usage_model_cost", "Cost of accepted answers, in the cluster's currency.", ["agent", "model"])
USAGE_PATTERN_TOKENS = Counter("tutti_usage_pattern_tokens", "Tokens of jobs that ended, wasted ones too.", ["pattern"])
USAGE_CLAIMS = Counter("tutti_usage_claims", "Attempts that a node holds, or held, the lease of.", ["node"])
USAGE_STAGE_SECONDS = Histogram("tutti_usage_stage_seconds", "Stages of accepted attempts.", ["model", "stage"], buckets=_LATENCY)
USAGE_ATTEMPTS_FAILED = Counter("tutti_usage_attempts_failed", "Attempts that ended without an answer.", ["model", "kind"])
USAGE_RETRIES = Counter("tutti_usage_retries", "Attempts after the first.", ["model"])
LETTERS_KEPT = Counter("tutti_letters_kept", "Dead letters read.", ["service", "code"])
NODE_SLOTS = Gauge("tutti_node_slots", "Concurrent inferences, as nodes announce them.", ["node"])
NODE_MEMORY_BYTES = Gauge("tutti_node_memory_bytes", "Memory, as nodes announce it.", ["node", "kind"])
NODE_INFO = Gauge("tutti_node_info", "1, of each node that is there: what it is.", ["node", "backend", "version", "accelerator"])
NODE_READY = Gauge("tutti_node_ready", "1: reachable, and neither draining nor waiting for an earlier boot: nothing is wrong.", ["node"])


def docs() -> list[tuple[str, str, str, str]]:
    """(name, type, labels, meaning) of every metric declared here, sorted. Counters' names end in `_total` where they are read."""
    declared = [value for value in globals().values() if isinstance(value, MetricWrapperBase)]
    described = ((next(iter(metric.describe())), ", ".join(metric._labelnames)) for metric in declared)  # noqa: SLF001 - the library has no other way
    return sorted((told.name + "_total" * (told.type == "counter"), told.type, labels, told.documentation) for told, labels in described)
