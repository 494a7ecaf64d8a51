"""Names and partitions: every topic of a cluster is derived from the registry and its settings."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from shared.contracts.base import CLASSES, PriorityClass
from shared.topics import DELAY_TIERS, FAMILIES, Topics, TopicSettings, partition_of, steps_partition

TENANTS = st.text(alphabet="abc0-", min_size=1, max_size=8)


def test_default_names() -> None:
    """The names that the documents use."""
    names = {topic.name for topic in Topics().all()}
    assert {"jobs.standard", "steps.chat.interactive", "work.embed", "outcomes", "job-events", "delays.1d", "dead-letters"} <= names
    assert {"steps.research.batch", "steps.critic.interactive"} <= names
    assert len(names) == 3 + 8 * 3 + 2 + 8 + 18


def test_agents_have_steps_and_no_mailboxes() -> None:
    """Their steps' topics have a count of their own; their steps lie in the mailbox of the model that runs them, whatever else is there."""
    topics = Topics(TopicSettings(capabilities=("embed", "research"), steps_partitions=3, agent_steps_partitions=2))
    counts = {topic.name: topic.partitions for topic in topics.all()}
    assert (counts["steps.embed.batch"], counts["steps.research.batch"]) == (3, 2)
    assert {name for name in counts if name.startswith("work.")} == {"work.embed", "work.chat"}
    assert topics.work("research") == "work.chat"
    for capability in topics.settings.capabilities:
        for priority_class in CLASSES:
            assert counts[topics.steps(capability, priority_class)] == topics.steps_partitions(capability)
        assert topics.work(capability) in counts


def test_a_prefix_keeps_clusters_apart() -> None:
    """No topic of a prefixed cluster has a name of another, also where code builds the name."""
    mine, other = Topics(TopicSettings(prefix="a-")), Topics(TopicSettings(prefix="b-"))
    built = {mine.jobs(PriorityClass.BATCH), mine.work("chat"), mine.delay("1s"), mine.outcomes, mine.results, mine.replies}
    assert built <= {topic.name for topic in mine.all()}
    assert not {topic.name for topic in mine.all()} & {topic.name for topic in other.all()}


def test_names_never_collide_in_kafka() -> None:
    """Kafka's metrics take `a.b` and `a_b` for the same."""
    names = [topic.name.replace("_", ".") for topic in Topics(TopicSettings(prefix="x_")).all()]
    assert len(set(names)) == len(names)


def test_home_topics_have_equal_counts() -> None:
    """One planner owns the same numbers of all of them."""
    topics = Topics(TopicSettings(home_partitions=24))
    home = [topic for topic in topics.all() if topic.family.count == "home"]
    assert {topic.name for topic in home} == {*topics.all_jobs(), "outcomes", "job-events"}
    assert {topic.partitions for topic in home} == {24}


def test_the_class_is_in_the_name() -> None:
    """A job's class is its topic; a step's too."""
    topics = Topics(TopicSettings(prefix="p."))
    assert [topics.class_of(name) for name in topics.all_jobs()] == list(CLASSES)
    assert [topics.class_of(name) for name in topics.all_steps()] == [*CLASSES] * 8


@pytest.mark.parametrize(
    ("topic", "allowed"),
    [
        ("x-replies", True),
        ("x-replies.billing", True),
        ("replies", False),
        ("x-repliesque", False),
        ("x-outcomes", False),
        ("x-job-events", False),
    ],
)
def test_replies_go_to_reply_topics_only(topic: str, allowed: bool) -> None:
    """A caller cannot make a service write to an internal topic, or to another cluster's."""
    assert Topics(TopicSettings(prefix="x-")).may_reply_to(topic) is allowed


@given(TENANTS, st.integers(0, 1_000), st.integers(1, 64))
def test_a_step_lands_in_range_and_always_on_the_same_partition(tenant: str, home: int, partitions: int) -> None:
    """Pure and bounded."""
    chosen = steps_partition(tenant, home, partitions)
    assert 0 <= chosen < partitions
    assert chosen == steps_partition(tenant, home, partitions)


def test_a_tenants_steps_are_even() -> None:
    """One tenant alone uses every partition, as evenly as its jobs use homes."""
    counts = Counter(steps_partition("default", home, 6) for home in range(24))
    assert len(counts) == 6
    assert max(counts.values()) == 24 / 6


def test_keys_spread_over_partitions() -> None:
    """Our partitioner uses every partition."""
    assert {partition_of(b"j_%d" % number, 6) for number in range(200)} == set(range(6))


def test_every_topic_has_a_bounded_or_compacted_life() -> None:
    """Nothing is kept for ever by accident; history outlives jobs."""
    topics = Topics()
    for topic in topics.all():
        config = topics.config(topic)
        assert "retention.ms" in config or config["cleanup.policy"] == "compact"
    retention = {family.pattern: family.retention_ms or 0 for family in FAMILIES}
    assert retention["job-events"] > retention["jobs.{class}"]
    assert retention["delays.{tier}"] > 1_000 * max(seconds for _, seconds in DELAY_TIERS)


def test_tiers_rise() -> None:
    """Shortest first, each name once."""
    seconds = [value for _, value in DELAY_TIERS]
    assert seconds == sorted(set(seconds))
    assert len({name for name, _ in DELAY_TIERS}) == len(DELAY_TIERS)


@pytest.mark.parametrize("values", [{"home_partitions": 0}, {"prefix": "a b"}, {"prefix": "x" * 42}, {"replication": 0}])
def test_wrong_settings_are_refused(values: dict[str, object]) -> None:
    """At start, not at the first record."""
    with pytest.raises(ValidationError):
        TopicSettings.model_validate(values)
