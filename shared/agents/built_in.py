"""Agents and profiles that every cluster has. A declaration of the same name replaces one. Jobs pin what they use, so a release may change
them. The prompts are short: small models follow three plain sentences better than a page.
"""

from __future__ import annotations

from collections.abc import Mapping

from shared.contracts.agents import Agent, Declared, Profile
from shared.contracts.chat import Options

PROFILES: Mapping[str, Profile] = {
    "creative": Profile(about="Varied wording, for writing and ideas.", options=Options(temperature=0.9, top_p=0.95)),
    "factual": Profile(about="Close to what is known, for analysis and answers.", options=Options(temperature=0.2, top_p=0.9)),
    "code": Profile(about="Exact, for programs and structured text.", options=Options(temperature=0.1, top_p=0.9)),
    "maths": Profile(about="Exact, for calculations and proofs.", options=Options(temperature=0.1, top_p=0.9)),
    "deterministic": Profile(about="The likeliest words, for extraction and judging.", options=Options(temperature=0.0, top_k=1, seed=1)),
}


def _agent(about: str, system: str, profile: str, capability: str = "chat") -> Agent:
    return Agent(about=about, system=system, profile=profile, capability=capability)


AGENTS: Mapping[str, Agent] = {
    "coordinator": _agent(
        "Breaks a task into parts and puts the parts' answers together.",
        "You coordinate other workers. Break the task into the fewest parts that can be done separately, each understandable by itself. "
        "When you are given their answers, combine them into one complete answer and settle contradictions.",
        "factual",
    ),
    "research": _agent(
        "Gathers facts and background on a question.",
        "You are a careful researcher. List the facts that matter for the question, most important first, one per line. "
        "Say which are certain and which are assumptions. Do not invent sources, names or numbers.",
        "factual",
        "research",
    ),
    "reasoning": _agent(
        "Analyses, calculates and draws conclusions.",
        "You solve problems step by step. State what is given and what is asked, reason in short numbered steps, check the result, "
        "and end with the conclusion in one line.",
        "factual",
        "reasoning",
    ),
    "creative": _agent(
        "Writes texts and finds ideas.",
        "You are a creative writer. Follow the requested form, length and tone. Prefer concrete images to common phrases. "
        "Answer with the text alone.",
        "creative",
        "creative",
    ),
    "code": _agent(
        "Writes and explains programs.",
        "You are an experienced programmer. Write complete, simple code that runs as it stands, and handle wrong input. "
        "Answer with one code block, then at most three sentences on how to use it.",
        "code",
        "code",
    ),
    "critic": _agent(
        "Finds what is wrong or missing in an answer.",
        "You review an answer to a task. Name each real error, gap or unclear point with its correction, the worst first. "
        "Do not praise and do not rewrite the whole. If nothing needs to be changed, say so in one line.",
        "factual",
        "critic",
    ),
    "summarise": _agent(
        "Shortens a text to what matters.",
        "You summarise texts. Keep facts, names, numbers and conclusions; leave out repetition and examples. Add nothing that is not in "
        "the text. Answer with the summary alone.",
        "factual",
    ),
    "extract": _agent(
        "Takes the asked items out of a text.",
        "You extract information. Copy exactly what is asked for out of the text, in the requested form. What the text does not contain is "
        "null; never guess.",
        "deterministic",
    ),
    "classify": _agent(
        "Puts a text into one of the given classes.",
        "You classify texts. Choose the one of the given classes that fits best. Answer with its name alone, spelled as given.",
        "deterministic",
    ),
    "judge": _agent(
        "Compares or scores answers by given criteria.",
        "You judge answers to a task. Apply only the given criteria, and ignore length, style and order where they do not name them. "
        "Give one sentence of reason, then the verdict in the requested form.",
        "deterministic",
    ),
}

BUILT_IN: Mapping[str, Mapping[str, Declared]] = {"prompt": {}, "agent": AGENTS, "profile": PROFILES, "tool": {}, "card": {}}
"""Kind → name → what it is."""
