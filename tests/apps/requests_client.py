"""What programs do with `requests`: `requests_client.py CA URL...`, each URL that of `app.py`."""

import os
import sys
from concurrent import futures

import requests

BIG = bytes(range(251)) * 16_000


def pieces(body):
    return (body[start : start + 10_007] for start in range(0, len(body), 10_007))


def exercise(session, url):
    assert session.get(url + "/echo").json()["method"] == "GET"
    assert session.post(url + "/mirror", data=BIG).content == BIG
    assert session.put(url + "/mirror", data=pieces(BIG)).content == BIG
    head = session.head(url + "/bytes/1000000")
    assert head.headers["content-length"] == "1000000" and not head.content
    for query in ["", "?chunked"]:
        with session.get(f"{url}/bytes/{len(BIG)}{query}", stream=True) as answer:
            assert b"".join(answer.iter_content(7_001)) == BIG
    assert session.get(url + "/nowhere").status_code == 404
    pools = session.get_adapter(url).poolmanager.pools
    assert [pools[key].num_connections for key in pools.keys()] == [1]

    bodies = [os.urandom(20_000) for _ in range(100)]
    with futures.ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lambda body: session.post(url + "/mirror", data=body).content, bodies)) == bodies


for url in sys.argv[2:]:
    with requests.Session() as session:
        session.verify = sys.argv[1]
        session.trust_env = False
        exercise(session, url)
print("all answered")
