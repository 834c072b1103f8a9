"""What programs do with `httpx`, over HTTP/1.1 and HTTP/2: `httpx_client.py CA URL...`, each URL that of `app.py`."""

import asyncio
import os
import ssl
import sys

import httpx

BIG = bytes(range(251)) * 16_000


async def pieces(body):
    for start in range(0, len(body), 10_007):
        yield body[start : start + 10_007]


async def exercise(client, url, version):
    answer = await client.get(url + "/echo")
    assert answer.json()["method"] == "GET" and answer.http_version == version, answer.http_version
    assert (await client.post(url + "/mirror", content=BIG)).content == BIG
    assert (await client.put(url + "/mirror", content=pieces(BIG))).content == BIG
    head = await client.head(url + "/bytes/1000000")
    assert head.headers["content-length"] == "1000000" and not head.content
    for query in ["", "?chunked"]:
        async with client.stream("GET", f"{url}/bytes/{len(BIG)}{query}") as answer:
            assert b"".join([piece async for piece in answer.aiter_bytes()]) == BIG
    assert (await client.get(url + "/nowhere")).status_code == 404

    # Less than a window of the connection in all: uploads that wait for one another's window wait for ever in httpcore 1.0.9.
    bodies = [os.urandom(5_000) for _ in range(100)]
    answers = await asyncio.gather(*(client.post(url + "/mirror", content=body) for body in bodies))
    assert [answer.content for answer in answers] == bodies
    assert {answer.http_version for answer in answers} == {version}


async def main():
    context = ssl.create_default_context(cafile=sys.argv[1])
    for url in sys.argv[2:]:
        # Without TLS, HTTP/2 is spoken where HTTP/1.1 is not.
        for version, http1, http2 in [("HTTP/1.1", True, False), ("HTTP/2", url.startswith("https:"), True)]:
            protocols = {"http1": http1, "http2": http2}
            async with httpx.AsyncClient(verify=context, timeout=30, trust_env=False, **protocols) as client:
                await exercise(client, url, version)
    print("all answered")


asyncio.run(main())
