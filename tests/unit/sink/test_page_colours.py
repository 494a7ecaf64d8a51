"""Every text colour of the page can be read on every ground that it stands on: contrast by WCAG 2, 4.5:1 or more, in both themes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

STYLE = (Path(__file__).parents[3] / "services/sink/page/static/style.css").read_text()
_BLOCKS = re.findall(r"(:root(?:\S*)) \{([^}]*)\}", STYLE)
TEXTS, GROUNDS = ("text", "soft", "accent", "good", "warn", "bad", "info", "idle"), ("ground", "panel", "raised")
PAIRS = [(text, ground) for text in TEXTS for ground in GROUNDS if text in ("text", "soft") or ground != "raised"]
PAIRS += [(look, f"{look}-ground") for look in ("good", "warn", "bad", "info", "idle")] + [("on-accent", "accent"), ("text", "info-ground")]


def colours(block: str) -> dict[str, str]:
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))


THEMES = {"light": colours(_BLOCKS[0][1]), "dark": colours(next(block for name, block in _BLOCKS if 'data-theme="dark"' in name))}


def luminance(colour: str) -> float:
    parts = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_the_measure_is_that_of_the_standard() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21.0)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("theme", THEMES)
def test_all_text_can_be_read(theme: str) -> None:
    found = THEMES[theme]
    faint = {pair: round(contrast(found[pair[0]], found[pair[1]]), 2) for pair in PAIRS}
    assert {pair: value for pair, value in faint.items() if value < 4.5} == {}


def test_both_ways_into_the_dark_theme_are_the_same() -> None:
    """By the system, and by choice; no colour stands outside the variables."""
    system = next(block for name, block in _BLOCKS if 'not([data-theme="light"])' in name)
    assert colours(system) == THEMES["dark"]
    assert THEMES["dark"].keys() == THEMES["light"].keys()
    rest = STYLE[STYLE.index("* { box-sizing") :]
    assert re.findall(r"#[0-9a-f]{3,8}\b(?![\w-])(?=[^{]*[;}])", rest) == []
