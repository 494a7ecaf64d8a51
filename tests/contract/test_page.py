"""The sink's page over HTTP: its files and their headers, who is told what, wrong questions, and acts that only the page may do."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra.lab import virtual_loop
from services.sink.page.present import COLUMNS
from services.sink.page.routes import files
from services.sink.port import LETTERS
from shared.contracts.headers import REPLAY_OF
from tests.support.cluster.rest import Request
from tests.support.ingress_world import until
from tests.support.page_world import PROMPT, PageWorld

FOLDER = Path(__file__).parents[2] / "services/sink/page/static"
ROOT, ACME = "root-key", "acme-key"
DATA = ("/page/stream", "/page/jobs/x", "/page/letters")
ACT = {"x-tutti-page": "1", "content-type": "application/json"}


@pytest.fixture
def keys(tmp_path: Path) -> str:
    from hashlib import sha256

    entries = [
        {"name": name.removesuffix("-key"), "digest": sha256(name.encode()).hexdigest(), "tenant": "acme", "admin": name == ROOT}
        for name in (ROOT, ACME)
    ]
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"keys": entries}))
    return str(path)


@asynccontextmanager
async def asking(
    jobs: int = 40, key: str | None = None, host: str = "127.0.0.1:9105", **settings: Any
) -> AsyncIterator[tuple[httpx.AsyncClient, PageWorld]]:
    world = PageWorld(jobs, settings=settings)
    sink = await world.build("http://127.0.0.1:8080")
    world.run("sink-1", sink)
    await until(sink.keys.complete, "the keys are read")
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(sink.asgi()), base_url=f"http://{host}", headers=headers) as client:
        try:
            yield client, world
        finally:
            await world.stop("sink-1")


def heard(body: bytes) -> Iterator[tuple[str, Any]]:
    """Events of a stream."""
    for frame in body.decode().split("\n\n"):
        told = dict(line.split(": ", 1) for line in frame.splitlines() if line and not line.startswith(":"))
        if "data" in told:
            yield told["event"], json.loads(told["data"])


async def stream(world: PageWorld, seconds: float, path: str = "/page/stream", headers: tuple[tuple[bytes, bytes], ...] = ()) -> Request:
    """What a viewer hears who stays so long."""
    local = [(b"host", b"127.0.0.1:9105"), *headers]
    call = Request("GET", path, headers=tuple(local), gives_up_after=seconds)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["headers"] = [(name, value) for name, value in scope["headers"] if value != b"simulated"]
        await world.sink.asgi()(scope, receive, send)

    await call.run(app)
    return call


# Files


async def test_every_file_is_safe_to_show() -> None:
    """Nothing from elsewhere, nothing inline, no guessing of types, no frame around it; and it is asked for again only when it changed."""
    async with asking() as (client, _):
        for name in ("", *(f"page/{name}" for name in files())):
            answer = await client.get(f"/{name}")
            assert answer.status_code == 200, name
            policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
            assert (policy["default-src"], policy["script-src"], policy["style-src"]) == ("'none'", "'self'", "'self'")
            assert policy["connect-src"] == "'self' http://127.0.0.1:8080"
            assert (policy["frame-ancestors"], policy["form-action"], policy["base-uri"]) == ("'none'",) * 3
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["referrer-policy"] == "no-referrer"
            again = await client.get(f"/{name}", headers={"if-none-match": answer.headers["etag"]})
            assert (again.status_code, again.content) == (304, b"")
        assert (await client.get("/page/..%2fapp.py")).status_code == 404
        assert (await client.get("/page/nothing.js")).json()["error"]["code"] == "not_found"


def test_nothing_inline_and_nothing_from_elsewhere() -> None:
    """The policy would block it; and no file is long."""
    assert {path.name for path in FOLDER.iterdir()} == set(files())
    for path in FOLDER.iterdir():
        text = path.read_text()
        assert len(text.splitlines()) <= 400, path.name
        assert not re.search(r"""(?:src|href)=["'](?!/page/|#)""", text), path.name
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)(?!127\.0\.0\.1|localhost)[a-z]", text), path.name
    page = (FOLDER / "index.html").read_text()
    assert not re.search(r"<script(?![^>]*src=)|<style|\sstyle=|\son\w+=", page)
    scripts = "".join(path.read_text() for path in FOLDER.glob("*.js"))
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", scripts)


# Who is told what


def test_the_stream_tells_all_and_goes_on_where_it_was() -> None:
    async def scene() -> None:
        async with asking(300) as (_, world):
            first = await stream(world, 5.0)
            events = list(heard(first.answer.body))
            assert first.answer.headers["content-type"].startswith("text/event-stream")
            assert first.answer.headers["cache-control"] == "no-store"
            assert events[0][0] == "hello"
            hello = events[0][1]
            assert tuple(hello["columns"]) == COLUMNS
            rows = {row[0]: row for name, data in events if name == "jobs" for row in data["rows"]}
            held = world.sink.watching.picture
            assert held is not None
            assert set(rows) == {job.id for job in (*held.jobs.live(), *held.jobs.ended())}
            assert len(rows) >= 300
            assert PROMPT not in first.answer.body.decode()
            last = [data for name, data in events if name == "overview"][-1]
            assert last["ready"]
            assert sum(last["ended"].values()) == sum(1 for row in rows.values() if row[COLUMNS.index("status")])
            assert [data for name, data in events if name == "nodes"][-1]["total"] == 5
            assert {row["pattern"] for name, data in events if name == "gains" for row in data["rows"]} == {"vote", "chain"}
            version = max(job.version for job in (*held.jobs.live(), *held.jobs.ended()))
            second = await stream(world, 2.0, f"/page/stream?after={held.boot}.{version}")
            assert not [data for name, data in heard(second.answer.body) if name == "jobs"]
            other = await stream(world, 2.0, f"/page/stream?after={'0' * 12}.{version}")
            assert sum(len(data["rows"]) for name, data in heard(other.answer.body) if name == "jobs") == len(rows)

    virtual_loop.run(scene())


def test_frames_come_at_most_twice_a_second() -> None:
    """However much happens; who does not read fast is told less often, and never less."""

    async def scene() -> None:
        async with asking(50) as (_, world):
            living = asyncio.create_task(world.live())
            call = await stream(world, 20.0)
            living.cancel()
            assert len([name for name, _ in heard(call.answer.body) if name == "overview"]) <= 2 * 20 + 2

    virtual_loop.run(scene())


def test_nobody_looks_and_nothing_is_read() -> None:
    """Reading begins with the first viewer, and ends a while after the last."""

    async def scene() -> None:
        async with asking(50, page_idle_seconds=30.0) as (_, world):
            await world.clock.sleep(20.0)
            reads = [world.sink.watching.picture is not None]
            await stream(world, 5.0)
            for _ in range(2):
                reads.append(world.sink.watching.picture is not None)
                await world.clock.sleep(20.0)
            reads.append(world.sink.watching.picture is not None)
            assert reads == [False, True, True, False]
            again = await stream(world, 5.0)
            assert sum(len(data["rows"]) for name, data in heard(again.answer.body) if name == "jobs") >= 50

    virtual_loop.run(scene())


def test_viewers_are_bounded_and_a_stop_ends_their_streams() -> None:
    async def scene() -> None:
        async with asking(10, page_viewers=2) as (_, world):
            looking = [asyncio.create_task(stream(world, 60.0)) for _ in range(2)]
            await world.clock.sleep(3.0)
            third = await stream(world, 1.0)
            assert (third.answer.status, third.answer.json["error"]["code"]) == (503, "overloaded")
            await world.sink.watching.drain()
            await world.clock.sleep(1.0)
            assert all(task.done() for task in looking)
            assert all(task.result().answer.complete for task in looking)

    virtual_loop.run(scene())


def test_who_takes_nothing_is_cut_off() -> None:
    """He would else hold a viewer's place, and reading, for ever."""

    async def scene() -> None:
        async with asking(10) as (_, world):
            for_ever = asyncio.Event()
            scope = {
                "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1", "method": "GET", "scheme": "http",
                "path": "/page/stream", "raw_path": b"/page/stream", "query_string": b"", "root_path": "",
                "headers": [(b"host", b"127.0.0.1")], "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 9105),
            }  # fmt: skip

            async def send(message: Any) -> None:
                if message["type"] == "http.response.body":
                    await for_ever.wait()

            async def receive() -> Any:
                await for_ever.wait()

            reading = asyncio.create_task(world.sink.asgi()(scope, receive, send))
            await world.clock.sleep(20.0)
            assert not reading.done()
            await world.clock.sleep(20.0)
            assert reading.done()
            assert reading.exception() is None
            assert world.sink.watching._viewers == 0

    virtual_loop.run(scene())


@pytest.mark.parametrize("path", DATA)
async def test_with_keys_only_an_administrator_is_told(path: str, keys: str) -> None:
    """A tenant's key is none; the files and what the page needs to begin are anybody's."""
    async with asking(3, TUTTI_SINK__KEYS_FILE=keys) as (client, _):
        assert (await client.get("/page/config")).json() == {"ingress": "http://127.0.0.1:8080", "keys": True, "most": 10_000}
        assert (await client.get(path)).status_code == 401
        for key, status in (("wrong", 401), (ACME, 403)):
            assert (await client.get(path, headers={"authorization": f"Bearer {key}"})).status_code == status
        act = await client.post("/page/letters/replay", json={"ids": ["0:0"]}, headers={**ACT, "authorization": f"Bearer {ACME}"})
        assert act.status_code == 403
        assert (await client.get("/page/letters", headers={"authorization": f"Bearer {ROOT}"})).status_code == 200


@pytest.mark.parametrize("host", ["sink.example.org", "127.0.0.1.example.org:9105", "localhost.example"])
async def test_without_keys_a_name_that_may_be_anybodys_is_told_nothing(host: str) -> None:
    """A foreign page whose name is made to mean this machine."""
    async with asking(3, host=host) as (client, _):
        for path in DATA:
            answer = await client.get(path)
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "unknown_host")
    async with asking(3, host="[::1]:9105") as (client, _):
        assert (await client.get("/page/letters")).status_code == 200


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/page/stream?after=x", 400),
        ("/page/stream?after=" + "0" * 12 + "." + "1" * 40, 400),
        ("/page/letters?limit=0", 400),
        ("/page/letters?limit=100000", 400),
        ("/page/letters?odd=1", 400),
        ("/page/jobs/acme/nothing", 404),
        ("/page/jobs/", 404),
    ],
)
async def test_a_wrong_question_is_refused(path: str, status: int) -> None:
    async with asking(3) as (client, _):
        answer = await client.get(path)
        assert answer.status_code == status, answer.text
        assert answer.headers["x-content-type-options"] == "nosniff"
        for wrong in ("post", "delete", "put"):
            assert (await getattr(client, wrong)(path.partition("?")[0])).status_code in (404, 405)
        assert "access-control-allow-origin" not in answer.headers


def test_a_job_is_shown_with_its_steps_and_why() -> None:
    """By its id inside the cluster, whatever it holds of slashes."""

    async def scene() -> None:
        async with asking(200) as (client, world):
            await stream(world, 3.0)
            held = world.sink.watching.picture
            assert held is not None
            job = next(one for one in held.jobs.ended() if "/" in one.id and one.why and one.pattern == "vote")
            told = (await client.get(f"/page/jobs/{job.id}")).json()
            assert told["job"]["id"] == job.id
            assert [node["kind"] for node in told["tree"]["nodes"]].count("step") == 5
            assert set(told["why"]) <= {node["step"]["id"] for node in told["tree"]["nodes"] if node["kind"] == "step"}
            assert PROMPT not in json.dumps(told)

    virtual_loop.run(scene())


# Dead letters


def test_dead_letters_are_sent_again_and_that_is_kept() -> None:
    """The original bytes at their place; who did it stands in the store and is shown."""

    async def scene() -> None:
        async with asking(5) as (client, world):
            await stream(world, 3.0)
            listed = (await client.get("/page/letters?limit=5")).json()
            assert len(listed["rows"]) == 5
            assert listed["seen"] == 7
            assert "promt" not in json.dumps([row | {"reason": ""} for row in listed["rows"]])
            answer = await client.post("/page/letters/replay", json={"ids": ["0:0", "1:0"]}, headers=ACT)
            assert answer.status_code == 200, answer.text
            sent = answer.json()["sent"]
            assert [(one["id"], one["topic"], one["partition"]) for one in sent] == [
                ("0:0", "jobs.standard", 0),
                ("1:0", "jobs.standard", 1),
            ]
            [record] = world.log.existing(("jobs.standard", 0)).records  # type: ignore[arg-type]
            assert record.value == b'{"promt": "x"}'
            assert dict(record.headers)[REPLAY_OF] == b"jobs.standard/0/4000/1"
            rows = (await client.get("/page/letters")).json()["rows"]
            assert {row["id"]: len(row["replays"]) for row in rows if row["replays"]} == {"0:0": 1, "1:0": 1}
            assert [row["replays"][0]["by"] for row in rows if row["replays"]] == ["open", "open"]
            world.store.away = True
            away = await client.post("/page/letters/replay", json={"ids": ["2:0"]}, headers=ACT)
            assert (away.status_code, away.json()["error"]["code"]) == (503, "store_away")
            assert not world.log.existing(("jobs.standard", 2)).records  # type: ignore[arg-type]
            assert (await client.get("/page/letters")).status_code == 200
            assert len(world.store.documents[LETTERS]) == 7

    virtual_loop.run(scene())


@pytest.mark.parametrize(
    ("headers", "body", "status", "code"),
    [
        ({"content-type": "application/json"}, {"ids": ["0:0"]}, 403, "foreign_page"),
        ({**ACT, "origin": "https://evil.example"}, {"ids": ["0:0"]}, 403, "foreign_page"),
        ({**ACT, "origin": "null"}, {"ids": ["0:0"]}, 403, "foreign_page"),
        ({**ACT, "sec-fetch-site": "cross-site"}, {"ids": ["0:0"]}, 403, "foreign_page"),
        ({**ACT, "sec-fetch-site": "same-site"}, {"ids": ["0:0"]}, 403, "foreign_page"),
        ({**ACT, "content-type": "text/plain"}, {"ids": ["0:0"]}, 400, "invalid_input"),
        (ACT, {"ids": []}, 400, "invalid_input"),
        (ACT, {"ids": ["0:0"] * 101}, 400, "invalid_input"),
        (ACT, {"ids": ["x"]}, 400, "invalid_input"),
        (ACT, {"ids": ["0:0"], "odd": 1}, 400, "unknown_field"),
        (ACT, {"ids": ["x" * 20_000]}, 413, "too_large"),
        (ACT, {"ids": ["99:0"]}, 404, "not_found"),
        (ACT, {"ids": ["0:999"]}, 404, "not_found"),
        (ACT, {"ids": ["3:0"]}, 409, "kept_in_part"),
        (ACT, {"ids": ["0:0", "3:0"]}, 409, "kept_in_part"),
    ],
)
async def test_who_may_not_or_cannot_replay_is_told_and_nothing_is_sent(headers: dict[str, str], body: Any, status: int, code: str) -> None:
    async with asking(5) as (client, world):
        answer = await client.post("/page/letters/replay", json=body, headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text
        assert all(not world.log.existing((topic, n)).records for topic in ("jobs.standard",) for n in range(6))  # type: ignore[arg-type]
        good = await client.post("/page/letters/replay", json={"ids": ["0:0"]}, headers={**ACT, "origin": "http://127.0.0.1:9105"})
        assert good.status_code == 200
