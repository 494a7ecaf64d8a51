import json, os, subprocess, sys, time, openai, pytest
from infra.native.waiting import wait_until

CHAT = "/v1/chat/completions"


@pytest.mark.timeout(280)
def test_measure(cluster):
    at = cluster("meas", environment={})
    print(
        "CASE",
        subprocess.run(
            [sys.executable, ""+os.environ["CASE"]+""],
            env={**os.environ, "BASE": at.url},
            capture_output=True,
            text=True,
        ),
    )
    client = openai.OpenAI(base_url=f"{at.url}/v1", api_key="any", max_retries=0, timeout=200)
    n = int(os.environ.get("N", "10000"))

    def line(i):
        return json.dumps(
            {
                "custom_id": f"c{i}",
                "method": "POST",
                "url": CHAT,
                "body": {"messages": [{"role": "user", "content": f"question {i}"}], "max_tokens": 4},
            }
        )

    def cpu():
        return {k: sum(map(int, open(f"/proc/{p}/stat").read().rsplit(")", 1)[1].split()[11:13])) / 100 for k, p in at.pids().items() if p}

    c0 = cpu()
    t = time.monotonic()
    f = client.files.create(file=("in.jsonl", "\n".join(map(line, range(n))).encode()), purpose="batch")
    t1 = time.monotonic()
    b = client.batches.create(input_file_id=f.id, endpoint=CHAT, completion_window="24h")
    t2 = time.monotonic()
    c1 = cpu()
    print("upload", t1 - t, "create", t2 - t1, "ingress cpu", c1["ingress"] - c0["ingress"])
    assert wait_until(lambda: client.batches.retrieve(b.id).status == "completed", 200.0)
    t3 = time.monotonic()
    c2 = cpu()
    print("run", t3 - t2, "lines/s", n / (t3 - t2), {k: round((c2[k] - c1[k]) / n * 1e6) for k in c1})
    s = time.monotonic()
    body = client.files.content(client.batches.retrieve(b.id).output_file_id).content
    print(
        "download",
        time.monotonic() - s,
        len(body),
        len(body.splitlines()),
        "ingress cpu",
        cpu()["ingress"] - c2["ingress"],
        "load",
        os.getloadavg(),
    )
