"""Every metric, declared once with its meaning. A misspelt name is a type error. Labels have few values by construction.

Durations are seconds, sizes bytes. `docs()` lists them for the README's links and the dashboards.
"""

from __future__ import annotations

from prometheus_client import REGISTRY, Counter, Gauge, Histogram, disable_created_metrics

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for every counter, which nobody reads

_LATENCY = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)

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
JOBS_UNREAD = Gauge("tutti_jobs_unread", "Committed records of jobs.* that planners have not taken; for autoscaling.", ["priority_class"])
RATE_LIMITED = Counter("tutti_rate_limited", "Requests refused by a key's limit.", ["limit"])
BUCKET_STORE_ERRORS = Counter("tutti_bucket_store_errors", "Calls of the shared rate buckets that failed; the instance's own count then.")
STATUS_STORE_ERRORS = Counter("tutti_status_store_errors", "Status store calls that failed; the status is then read from events.")

# Delay
DELAYED_FORWARDED = Counter("tutti_delayed_forwarded", "Delayed records sent on.", ["tier"])
DELAY_LATENESS_SECONDS = Histogram("tutti_delay_lateness_seconds", "Forwarded minus due.", buckets=_LATENCY)
JOBS_FORWARDED = Counter("tutti_jobs_forwarded", "Records on jobs.* that lay elsewhere than at their id's home, and were sent on.")
SCHEDULE_RUNS_TAKEN = Counter("tutti_schedule_runs_taken", "Runs of schedules not begun: another job has the run's id.")
CANCELS_FORGOTTEN = Counter("tutti_cancels_forgotten", "Cancels of unknown jobs that newer ones pushed out before their job came.")
DELAYS_HELD = Gauge("tutti_delays_held", "Records held in memory in their last second.")

# Sink
SINK_EVENTS = Counter("tutti_sink_events", "Valid events folded.")
SINK_WRITE_SECONDS = Histogram("tutti_sink_write_seconds", "One batch written to the store.", buckets=_LATENCY)
SINK_STORE_ERRORS = Counter("tutti_sink_store_errors", "Calls of the store that failed; they are made again.")
SINK_REFUSED = Counter("tutti_sink_refused", "Documents that the store refused for what they hold.")
SINK_BEHIND_SECONDS = Gauge("tutti_sink_behind_seconds", "Age of the newest event folded, while events wait; else 0.")
USAGE_JOBS = Counter("tutti_usage_jobs", "Jobs ended.", ["tenant", "pattern", "priority_class", "status"])
USAGE_JOB_SECONDS = Histogram("tutti_usage_job_seconds", "Jobs, whole.", ["pattern", "priority_class"], buckets=_LATENCY)
USAGE_TOKENS = Counter("tutti_usage_tokens", "Tokens of jobs that ended; wasted: of attempts that did not count.", ["tenant", "kind"])
USAGE_COST = Counter("tutti_usage_cost", "Cost of jobs that ended, in the cluster's currency.", ["tenant"])
USAGE_STEPS = Counter("tutti_usage_steps", "Steps that ended.", ["agent", "model", "outcome"])
USAGE_MODEL_TOKENS = Counter("tutti_usage_model_tokens", "Tokens of accepted answers.", ["agent", "model"])
USAGE_STAGE_SECONDS = Histogram("tutti_usage_stage_seconds", "Stages of accepted attempts.", ["model", "stage"], buckets=_LATENCY)
USAGE_ATTEMPTS_FAILED = Counter("tutti_usage_attempts_failed", "Attempts that ended without an answer.", ["model", "kind"])
USAGE_RETRIES = Counter("tutti_usage_retries", "Attempts after the first.", ["model"])
LETTERS_KEPT = Counter("tutti_letters_kept", "Dead letters read.", ["service", "code"])
NODE_SLOTS = Gauge("tutti_node_slots", "Concurrent inferences, as nodes announce them.", ["node"])
NODE_MEMORY_BYTES = Gauge("tutti_node_memory_bytes", "Memory, as nodes announce it.", ["node", "kind"])
NODE_READY = Gauge("tutti_node_ready", "1: reachable, and neither draining nor waiting for an earlier boot.", ["node"])


def docs() -> list[tuple[str, str, str]]:
    """(name, type, meaning) of every metric declared here, sorted."""
    found = {(m.name, m.type, m.documentation) for m in REGISTRY.collect() if m.name.startswith("tutti_")}
    return sorted(found)
