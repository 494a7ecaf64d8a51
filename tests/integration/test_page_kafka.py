"""The page on a real cluster, in a real browser: a job asked in the playground is in the list, a review is answered, a letter replayed.

browser ──► sink's page ──► (SSE) rows, counts │ POST replay ──► jobs.standard ──► planner ──► dead-letters again
        └─► ingress: playground, reviews
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from playwright.sync_api import expect

from infra.native.cluster import LocalCluster
from infra.native.waiting import wait_until
from tests.support.browser import chromium
from tests.support.native import StartCluster
from tests.support.raw_kafka import producer

pytestmark = [pytest.mark.kafka, pytest.mark.chromium, pytest.mark.timeout(300)]


async def misspelt(at: LocalCluster) -> None:
    async with producer(at.servers) as sender:
        await sender.send_and_wait(f"{at.prefix}jobs.standard", b'{"promt": "a misspelt field"}')


def looking(url: str) -> None:
    """All that a person does on the page."""
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1360, "height": 860})
        wrong: list[str] = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(url)
        expect(page.locator("#link")).to_have_text("live")
        expect(page.locator("#fleet tbody tr")).to_have_count(1, timeout=20_000)
        expect(page.locator("#fleet-note")).to_contain_text("slots in use", timeout=20_000)

        page.goto(f"{url}/#play")
        page.locator("[name=prompt]").fill("Name a planet.")
        page.get_by_role("button", name="Send").click()
        expect(page.locator("#took")).to_contain_text("first token", timeout=30_000)
        assert page.locator("#answer").inner_text().strip()

        page.goto(f"{url}/#reviews")
        expect(page.locator(".review")).to_have_count(1, timeout=30_000)
        page.get_by_role("button", name="Approve").click()
        expect(page.locator("#reviews-empty")).to_contain_text("Nothing waits for people", timeout=30_000)

        page.goto(f"{url}/#jobs")
        expect(page.locator(".grid-row", has_text="succeeded")).to_have_count(2, timeout=30_000)
        page.locator(".grid-row", has_text="asked").click()
        expect(page.locator("#detail .step")).to_have_count(2)
        expect(page.locator("#detail")).to_contain_text("decided")

        page.goto(f"{url}/#letters")
        expect(page.locator("#letters tbody tr")).to_have_count(1)
        expect(page.locator("#letters")).to_contain_text("promt")
        page.locator("#letters tbody input").check()
        page.get_by_role("button", name="Replay 1").click()
        page.get_by_role("button", name="Send again").click()
        expect(page.locator("#letters tbody tr")).to_have_count(2, timeout=30_000)  # refused again, for the same reason
        assert wrong == []
        page.close()


def test_the_page_of_a_real_cluster(cluster: StartCluster) -> None:
    at = cluster("page", copies={"sink": 1})
    asyncio.run(misspelt(at))
    step = {"name": "draft", "template": "{input}", "review": {"default": "reject", "deadline_seconds": 600}}
    job = {"id": "asked", "prompt": "hello", "pattern": "chain", "input": {"steps": [step]}}
    assert httpx.post(f"{at.url}/v1/jobs", json=job, timeout=30).status_code == 202

    with ThreadPoolExecutor(1) as pool:  # Playwright takes the event loop of its thread
        pool.submit(looking, at.services["sink"].url).result()

    counted = httpx.get(f"{at.services['sink'].url}/v1/usage", timeout=10)
    assert counted.json()["error"]["code"] == "store_away"  # this sink has none, and its page is whole all the same
    assert wait_until(lambda: httpx.get(f"{at.services['sink'].url}/readyz").status_code == 200, 10.0)
