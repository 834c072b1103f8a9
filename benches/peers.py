#!/usr/bin/env python3
"""What a request costs in Tidegate, nginx and HAProxy, side by side. See README.md."""

import argparse
import dataclasses
import getpass
import grp
import json
import os
import platform
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from datetime import datetime, timezone
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPO = HERE.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", REPO / "target")).resolve()
OUT = REPO / "target" / "bench"
HZ = os.sysconf("SC_CLK_TCK")
PEERS = ["nginx", "haproxy"]
NAMES = ["tidegate", *PEERS]


@dataclasses.dataclass(frozen=True)
class Scenario:
    about: str
    path: str = "/r57/item"
    connections: int = 64
    post: int = 0
    close: bool = False
    log: bool = False
    is_rate: bool = False


SCENARIOS = {
    "get": Scenario("GET 1 KiB, keep-alive, 64 connections"),
    "close": Scenario("GET 1 KiB, one connection per request", close=True),
    "post": Scenario("POST 64 KiB, keep-alive, 64 connections", post=64 * 1024),
    "mib": Scenario("GET 1 MiB, keep-alive, 16 connections", path="/r57/mib", connections=16),
    "log": Scenario("as `get`, with a JSON access log in a file", log=True),
    "rate": Scenario("as `get`, at a fixed rate", is_rate=True),
}


# --- processes: what they used, and their end ---


def tree(pid):
    """The process and its living descendants."""
    pids = [pid]
    for parent in pids:
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                pids += map(int, children.read_text().split())
            except OSError:
                pass  # it ended meanwhile
    return pids


def cpu_seconds(pid):
    """User and system time of the whole tree, children that ended included."""
    ticks = 0
    for each in tree(pid):
        try:
            ticks += sum(map(int, Path(f"/proc/{each}/stat").read_text().rsplit(")", 1)[1].split()[11:15]))
        except OSError:
            pass
    return ticks / HZ


def memory_mib(pid, field):
    """`Rss` or `Pss` of the whole tree."""
    kib = 0
    for each in tree(pid):
        try:
            kib += int(re.search(rf"^{field}:\s+(\d+)", Path(f"/proc/{each}/smaps_rollup").read_text(), re.M)[1])
        except OSError:
            pass
    return kib / 1024


def machine_seconds():
    """What all processes of the machine used, and what its host took away."""
    user, nice, system, _idle, _wait, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + irq + softirq) / HZ, steal / HZ


def stop(process):
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        for pid in reversed(tree(process.pid)):
            os.kill(pid, signal.SIGKILL)
        process.wait()


# --- the machine's part: tools, ports, servers ---


def ensure_installed():
    missing = [name for name in [*PEERS, "wrk"] if not shutil.which(name)]
    if not missing:
        return
    install = ["apt-get", "install", "--yes", "--no-install-recommends", *missing]
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        sys.exit(f"missing: {', '.join(missing)}. On Debian, as root: {' '.join(install)}")
    if subprocess.run(install, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"}).returncode != 0:
        sys.exit(f"failed: {' '.join(install)} (after `apt-get update` it may succeed)")


def version(command):
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    return re.search(r"\d+\.\d+\.\d+", said.stdout + said.stderr)[0]


def free_ports(count):
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in held]
    for each in held:
        each.close()
    return ports


def render(template, folder, values, on):
    """Fills a config. `#if WORD#` switches its line on, `#unless WORD` off, where WORD is among `on`."""
    lines = []
    for line in (HERE / "peers" / template).read_text().splitlines():
        if conditional := re.match(r"(\s*)#if (\w+)# (.*)", line):
            if conditional[2] not in on:
                continue
            line = conditional[1] + conditional[3]
        elif (conditional := re.search(r" #unless (\w+)$", line)) and conditional[1] in on:
            continue
        lines.append(re.sub(r"__([A-Z0-9]+)__", lambda name: str(values[name[1]]), line))
    path = folder / template
    path.write_text("\n".join(lines) + "\n")
    return path


class Field:
    """The upstream and every contestant, running with the settings of one scenario."""

    def __init__(self, scenario, tidegate):
        self.folder = OUT / "run"
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        (self.folder / "mib").write_bytes(bytes(1024 * 1024))
        backends = dict(zip(["BACKEND1", "BACKEND2"], free_ports(2)))
        user = f"{getpass.getuser()} {grp.getgrgid(os.getgid()).gr_name}"
        common = {"USER": user, "DIR": self.folder, "KIB": "x" * 1024, **backends}
        routes = "\n".join(f"  - {{ path: /r{number:02}/*, to: app }}" for number in range(100))
        on = {"log"} if scenario.log else set()

        def configured(template, **values):
            return str(render(template, self.folder, {**common, **values}, on))

        self.ports = dict(zip(NAMES, free_ports(len(NAMES))))
        (admin,) = free_ports(1)
        config = configured("tidegate.yaml", PORT=self.ports["tidegate"], ADMIN=admin, ROUTES=routes)
        commands = {
            "upstream": ["nginx", "-p", str(self.folder), "-c", configured("upstream.conf")],
            "tidegate": [str(tidegate), "run", "-c", config],
            "nginx": ["nginx", "-p", str(self.folder), "-c", configured("nginx.conf", PORT=self.ports["nginx"])],
            "haproxy": ["haproxy", "-db", "-f", configured("haproxy.cfg", PORT=self.ports["haproxy"])],
        }
        self.running = {}
        try:
            for name, command in commands.items():
                output = open(self.folder / f"{name}.out", "w")
                self.running[name] = subprocess.Popen(command, stdout=output, stderr=output, cwd=self.folder)
            for name in NAMES:
                self.await_answer(name, scenario.path)
        except BaseException:
            self.stop()
            raise

    def await_answer(self, name, path):
        deadline = time.monotonic() + 10
        while True:
            try:
                with urllib.request.urlopen(self.url(name, path), timeout=5):
                    return
            except OSError as error:
                if time.monotonic() > deadline or self.running[name].poll() is not None:
                    sys.exit(f"{name} does not answer: {error}\n{(self.folder / f'{name}.out').read_text()[-2000:]}")
                time.sleep(0.05)

    def url(self, name, path):
        return f"http://127.0.0.1:{self.ports[name]}{path}"

    def stop(self):
        for process in self.running.values():
            stop(process)


# --- one round ---


def wrk(field, name, scenario, seconds):
    command = ["wrk", "-t1", f"-c{scenario.connections}", f"-d{seconds}s", "-s", str(HERE / "peers" / "wrk.lua")]
    if scenario.close:
        command += ["-H", "Connection: close"]
    process = subprocess.Popen(
        [*command, field.url(name, scenario.path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "BODY": str(scenario.post)},
    )
    memory = memory_under_load(field, name, seconds)
    requests, micros, errors = map(int, process.communicate()[0].splitlines()[-1].split())
    return {"requests": requests, "errors": errors, "per_second": requests / micros * 1e6, **memory}


def steady(field, name, scenario, seconds, rate):
    address = f"127.0.0.1:{field.ports[name]}"
    command = [OUT / "rate", address, scenario.path, str(scenario.connections), str(rate), str(seconds)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    memory = memory_under_load(field, name, seconds)
    said = json.loads(process.communicate()[0])
    return {**said, "per_second": said["requests"] / seconds, **memory}


def memory_under_load(field, name, seconds):
    time.sleep(seconds * 0.7)
    pid = field.running[name].pid
    return {"rss_mib": memory_mib(pid, "Rss"), "pss_mib": memory_mib(pid, "Pss")}


def measure(field, name, scenario, seconds, rate):
    """Puts load on one contestant and reads what it used meanwhile."""
    pid = field.running[name].pid

    def clocks():
        return cpu_seconds(pid), cpu_seconds(os.getpid()), *machine_seconds(), time.monotonic()

    before = clocks()
    if scenario.is_rate:
        said = steady(field, name, scenario, seconds, rate)
    else:
        said = wrk(field, name, scenario, seconds)
    its, ours, everybody, stolen, elapsed = (now - then for now, then in zip(clocks(), before))
    if said["requests"] == 0:
        sys.exit(f"{name} answered nothing; see {field.folder}")
    return {
        **said,
        "cpu_us": its / said["requests"] * 1e6,
        "foreign": max(0.0, everybody - ours) / elapsed / os.cpu_count(),
        "stolen": stolen / elapsed / os.cpu_count(),
    }


def play(key, options, rate, raw):
    """All rounds of a scenario. The order turns from round to round, so that nobody always follows the same one."""
    scenario = SCENARIOS[key]
    field = Field(scenario, options.tidegate)
    rounds = []
    try:
        for name in NAMES:
            measure(field, name, scenario, 1, rate)  # warms its pools
        for number in range(options.rounds):
            turn = number % len(NAMES)
            rounds.append({})
            for name in NAMES[turn:] + NAMES[:turn]:
                rounds[-1][name] = measure(field, name, scenario, options.seconds, rate)
                line = {"scenario": key, "round": number, "contestant": name, **rounds[-1][name]}
                print(json.dumps(line), file=raw, flush=True)
            print(f"{key} {number + 1}/{options.rounds}", file=sys.stderr)
    finally:
        field.stop()
    return rounds


# --- the report ---


def median(rounds, name, field):
    return statistics.median(each[name][field] for each in rounds)


def ratio(rounds, name, field, best):
    """The median over rounds of `name` to the better peer of the same round."""
    return statistics.median(each[name][field] / max(best(each[peer][field] for peer in PEERS), 1e-9) for each in rounds)


def table(key, rounds, rate):
    scenario = SCENARIOS[key]
    noise = [statistics.median(r[n][what] for r in rounds for n in NAMES) for what in ("foreign", "stolen")]
    yield f"### `{key}`: {scenario.about}" + (f" of {rate}/s" if scenario.is_rate else "")
    yield ""
    yield f"{len(rounds)} rounds; other work on the machine {noise[0]:.0%}, taken by its host {noise[1]:.0%} (medians)."
    yield ""
    last = ["p50 ms", "p99 ms", "p99 x best"] if scenario.is_rate else ["req/s", "req/s x best"]
    header = ["", "CPU us/request", "CPU x best", *last, "errors", "RSS MiB", "PSS MiB"]
    yield row(header)
    yield row(["---"] + ["--:"] * (len(header) - 1))
    for name in NAMES:
        costs = [each[name]["cpu_us"] for each in rounds]
        cost = f"{statistics.median(costs):.1f} ({min(costs):.1f}-{max(costs):.1f})"
        cells = [name, cost, f"{ratio(rounds, name, 'cpu_us', min):.2f}"]
        if scenario.is_rate:
            cells += [f"{median(rounds, name, field) / 1000:.2f}" for field in ("p50", "p99")]
            cells += [f"{ratio(rounds, name, 'p99', min):.2f}"]
        else:
            cells += [f"{median(rounds, name, 'per_second'):,.0f}", f"{ratio(rounds, name, 'per_second', max):.2f}"]
        cells += [str(sum(each[name]["errors"] for each in rounds))]
        cells += [f"{median(rounds, name, field):.1f}" for field in ("rss_mib", "pss_mib")]
        yield row(cells)
    yield ""


def row(cells):
    return f"| {' | '.join(cells)} |"


def losses(played):
    """Every case in which a peer did better, by however little."""
    for key, rounds in played.items():
        is_rate = SCENARIOS[key].is_rate
        checks = [("CPU per request", "cpu_us", min), ("memory (PSS)", "pss_mib", min)]
        checks += [("p50", "p50", min), ("p99", "p99", min)] if is_rate else [("req/s", "per_second", max)]
        for what, field, best in checks:
            to_best = ratio(rounds, "tidegate", field, best)
            if (to_best > 1.005) if best is min else (to_best < 0.995):
                yield f"- `{key}`: {what} is {to_best:.2f} x the better peer's"


def report(played, rate, versions, options):
    yield f"# Tidegate beside nginx and HAProxy, {datetime.now(timezone.utc):%Y-%m-%d}"
    yield ""
    yield f"{versions}. {os.cpu_count()} CPUs, Linux {platform.release()}, loopback; {options.seconds} s a round."
    yield "*x best*: median over rounds of the ratio to the better peer of the same round."
    yield ""
    yield "## Where Tidegate loses"
    yield ""
    yield from list(losses(played)) or ["Nowhere in this run."]
    yield ""
    yield "## Figures"
    yield ""
    for key, rounds in played.items():
        yield from table(key, rounds, rate)


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="\n".join(f"{key:6} {scenario.about}" for key, scenario in SCENARIOS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help="default: all")
    parser.add_argument("-r", "--rounds", type=int, default=8, help="default: 8")
    parser.add_argument("-t", "--seconds", type=int, default=3, help="of load per round and contestant; default: 3")
    parser.add_argument("--rate", type=int, help="requests/s of `rate`; default: a quarter of what the peers manage")
    parser.add_argument("--tidegate", type=Path, help="a binary; default: a release build of this tree")
    options = parser.parse_args()
    if unknown := [key for key in options.scenarios if key not in SCENARIOS]:
        parser.error(f"no such scenario: {', '.join(unknown)}")
    return options


def main():
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # unwinds, so that nothing is left running
    ensure_installed()
    OUT.mkdir(parents=True, exist_ok=True)
    subprocess.run(["rustc", "--edition=2024", "-O", "-o", OUT / "rate", HERE / "rate.rs"], check=True)
    if options.tidegate is None:
        subprocess.run(["cargo", "build", "--release"], cwd=REPO, check=True)
        options.tidegate = TARGET / "release" / "tidegate"
    options.tidegate = options.tidegate.resolve()
    versions = f"Tidegate {version([options.tidegate, '--version'])}"
    versions += f", nginx {version(['nginx', '-v'])}, HAProxy {version(['haproxy', '-v'])}"

    keys = [key for key in SCENARIOS if key in options.scenarios or not options.scenarios]
    played, rate = {}, options.rate
    with open(OUT / "rounds.jsonl", "w") as raw:
        for key in keys:
            if SCENARIOS[key].is_rate and rate is None:
                capacity = played.get("get") or play("get", argparse.Namespace(**{**vars(options), "rounds": 1}), None, raw)
                rate = round(min(median(capacity, peer, "per_second") for peer in PEERS) / 4, -2)
                rate = max(100, int(rate))
            played[key] = play(key, options, rate, raw)
    text = "\n".join(report(played, rate, versions, options))
    (OUT / "report.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
