"""A small service as a team would write it: one replica of it, named by $REPLICA, is a backend of the tests."""

import os
import threading
import time
from datetime import datetime, timezone

from flask import Flask, Response, jsonify, request

app = Flask(__name__)
replica = os.environ.get("REPLICA", "app")
broken = threading.Event()


@app.get("/")
def index():
    return jsonify(replica=replica)


@app.get("/health")
def health():
    """Unhealthy, with status 503, as long as the database is said to be gone."""
    database = "unhealthy" if broken.is_set() else "healthy"
    report = {
        "status": database,
        "checks": {"database": database, "cache": "healthy", "external": "healthy"},
        "timestamp": datetime.now(timezone.utc).isoformat(),
    }
    return jsonify(report), 503 if broken.is_set() else 200


@app.post("/break")
def break_():
    broken.set()
    return jsonify(replica=replica, status="unhealthy")


@app.post("/heal")
def heal():
    broken.clear()
    return jsonify(replica=replica, status="healthy")


@app.get("/slow")
def slow():
    time.sleep(min(request.args.get("ms", default=100, type=int), 10_000) / 1000)
    return jsonify(replica=replica)


@app.route("/echo", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
def echo():
    return jsonify(
        replica=replica,
        method=request.method,
        path=request.full_path.rstrip("?"),
        headers={name.lower(): value for name, value in request.headers.items()},
        body=request.get_data(as_text=True),
    )


@app.route("/mirror", methods=["POST", "PUT"])
def mirror():
    """The body as it came."""
    return Response(request.get_data(), mimetype="application/octet-stream")


@app.get("/bytes/<int:size>")
def some_bytes(size):
    """So many bytes: 0 to 250, over and over. In chunks where `?chunked` asks for them."""
    cycle = bytes(range(251))
    body = (cycle * (size // len(cycle) + 1))[:size]
    pieces = (body[start : start + 10_007] for start in range(0, size, 10_007))
    return Response(pieces if "chunked" in request.args else body, mimetype="application/octet-stream")
