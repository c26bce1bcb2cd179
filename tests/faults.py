"""The catalogue of faults, and which tests show that each of its rows is met.

::

    python -m tests.faults                  runs them, and prints the table
    python -m tests.faults --collect-only   prints the table alone
    pytest -k N7                            runs the tests of one row

A test says which rows it shows with `@pytest.mark.fault("N7", …)`.
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from typing import Final

import pytest

CATALOGUE: Final = {
    "N1": "connect refused: bind, close, use port",
    "N2": "blackhole connect: listen(0) with full backlog, never accept",
    "N3": "DNS failure: custom resolver raising; then recovering",
    "N4": "DNS moves to a new IP mid-run (resolver returns port B after t)",
    "N5": "RST after accept (SO_LINGER 0) before request read",
    "N6": "close after full request read, no response; check server count",
    "N7": "keep-alive race: server closes idle conn at t=keepalive−ε, client sends",
    "N8": "response headers never come (accept+read, sleep)",
    "N9": "drip: 1 byte/0.1 s; sock_read alone never fires, total does",
    "N10": "cut after k bytes, for every k of a valid response (sweep)",
    "N12": "latency 0–3× interval, jitter",
    "N13": "half-open: server process SIGSTOP",
    "N14": "TLS: expired, wrong host, self-signed, TLS1.0 only (ssl server on loopback)",
    "N15": "proxy env (HTTP_PROXY) set to a trap server",
    "N17": "slow_close: response complete, FIN delayed 60 s",
    "N18": "network down 2 h then up, 10 000 watches (VT)",
    "H1": "500/502/504 once then 200, GET",
    "H2": "same for POST create",
    "H3": "503 + Retry-After: 7",
    "H4": "Retry-After: HTTP-date, past date, -1, 'abc', 1e9, 10^400, two headers",
    "H5": "429 without header, code ModelArts.2799/4206/6101/APIGW.0308",
    "H6": "408/504 on details",
    "H7": "3xx to other host (RAW trap records headers)",
    "H8": "301 http→https same host, or loop",
    "H9": "204/202/205 empty body where JSON is expected",
    "H11": "bad status line, HTTP/0.9, HTTP/1.1 999, negative Content-Length, CL+TE",
    "H12": "413/414/494/431 from gateway",
    "H13": "header >8190 (token) ok to 64 KB; 200 headers ⇒ error",
    "H14": "HTML login page, 200, text/html (captive portal/WAF)",
    "H15": "JSON body with text/plain or missing type",
    "J1": "truncated chunked/CL",
    "J2": "gzip bomb 2.3 MB→512 MB; also deflate, br, zstd, nested",
    "J3": "body >cap without CL (chunked endless)",
    "J4": "[×100 000",
    "J5": "5000-digit integer",
    "J6": "NaN/Infinity/1e999 in duration, create_time",
    "J8": "job_id 197, '197', 197.0, 2^63, −1, true, null",
    "J9": "status '8', 8.0, 99, −1, null, true, missing",
    "J12": "top level list, string, null, empty, whitespace",
    "J13": "extra/new fields, fields null (remaining_duration:null in sample)",
    "J14": "jobs: null / missing / object; one bad row of 100",
    "J15": "create_time in s, ms, 11-digit, 0, negative, year 9999 overflow",
    "J16": "is_success 'false' (string), 0, missing",
    "A1": "401 once (0202 expired) then ok",
    "A2": "401 for ever",
    "A3": "10 000 watches get 401 together",
    "A5": "24 h×30 rotations (VT)",
    "A6": "IAM down at refresh, old token still good",
    "A7": "IAM 401 wrong password",
    "A9": "403 vs 401 vs 500+0109",
    "A10": "local clock +20 min with AK/SK ⇒ 'signature expired, … server time:'",
    "A11": "signing: unicode, space, +, ~, %2F, empty and repeated query keys, empty body,…",
    "A12": "retry must re-sign (new X-Sdk-Date)",
    "A13": "error_msg echoes canonicalRequest / token",
    "A14": "wrong-project token: 404 ModelArts.2786, 400 0204",
    "A15": "credentials provider raises / hangs / returns ''",
    "S1": "HTTP 200 + is_success:false (0104)",
    "S2": "error_message, error_msg, errorMsg, message, nested {'error':{…}}",
    "S3": "HTTP 200 + error_code of a progress kind + is_success true",
    "S4": "stop on done job ⇒ 0105 'can't be stop. job status: 10'",
    "S5": "stop sent, reply lost, retry ⇒ 0105",
    "S6": "delete twice ⇒ 404/0105 status 9",
    "S7": "create reply lost, job exists",
    "S8": "create twice with the same name (both succeed or refused: undocumented)",
    "S9": "restart of running ⇒ 0105 'can't be resubmit… 8'",
    "S10": "PUT description retried after a newer edit of somebody else",
    "S11": "quota: job_count_limit reached, 0118/2815",
    "S12": "desc >256, name >20 or bad chars, per_page 0/1001, duration 25",
    "S13": "per_page=1000 refused by a region (limit 100) ⇒ 0104",
    "P1": "insert before cursor",
    "P2": "delete before cursor ⇒ one row skipped",
    "P3": "status sort while statuses change",
    "P4": "job_total_count wrong, missing, negative, shrinking",
    "P8": "1 000 000 jobs",
    "P9": "error on page k",
    "W1": "deleted during watch: 404",
    "W2": "404 right after create, for 1–30 s",
    "W3": "404 from wrong project/endpoint (2786, APIGW.0101)",
    "W4": "404 flaps 1 in 5",
    "W5": "restart while watching 12→1→8",
    "W6": "restart() then watch(): first polls still 12",
    "W8": "stale replica: 8→7→8, 10→8 one poll",
    "W9": "flapping 8/15/8/15 every poll",
    "W10": "unknown code 22/99",
    "W11": "status 0 UNKNOWN for hours",
    "W12": "6 DELETE_FAILED, 14 LOST, 20/21 review codes",
    "W13": "never-ending: KILLING 9 for 24 h",
    "W14": "job terminal at first poll",
    "W15": "wall clock jumps ±1 day / DST / NTP slew (patch time.time)",
    "W17": "transient error storm 30 min",
    "W18": "permanent error (403)",
    "W19": "2 watchers on the same job",
    "C1": "cancel at every await point (sweep by step count) ×{get,list,watch,create}",
    "C3": "break out of async for watch()",
    "C4": "task group: one watch fails",
    "C5": "client.close() with live watches/waiters",
    "C6": "use after close, double close, two loops, fork",
    "C7": "SIGINT/SIGTERM in service (PROC)",
    "C8": "user callback raises / blocks 10 s / never returns",
    "C9": "cancel during token refresh",
    "C10": "anyio cancel scope + asyncio.timeout nested; trio (if backend allows)",
    "C11": "uncancellable shield misuse: close in cancelled scope",
    "R1": "consumer stops reading, 1e6 events",
    "R2": "fd limit 64 (setrlimit in PROC)",
    "R3": "10 000 watches on limit=100 pool",
    "R5": "retry budget empty",
    "R6": "429 for all",
    "R7": "memory: 1e6 polls",
    "R8": "log flood: 10 000 watches fail",
    "X1": "canary token/SK in repr, str, vars, pickle, copy, logging DEBUG, traceback with…",
    "X2": "redirect token theft",
    "X3": "endpoint http://",
    "X4": "job_id/project_id injection list of wire.md (aiohttp, 6), fullwidth digits, %2e%2e,…",
    "X5": "CRLF in token, description, user-agent suffix, workspace_id",
    "X6": "service_url = http://169.254.169.254/, file://, javascript:",
    "X7": "next-link or Location style paging fields",
    "X8": "job_name with ESC[2J, OSC 52, OSC 8, BiDi, \r, NUL, 1 MB long",
    "X10": "config YAML/TOML bombs, anchors, 1 GB file",
    "X11": "cached token file mode, symlink",
    "X12": "checkpoint file from attacker: pickle, deep JSON, path in project_id",
    "X13": "env creds of other cloud/other region sent to custom endpoint",
    "D1": "kill after event delivered, before checkpoint",
    "D2": "kill during checkpoint write (every byte offset; also ENOSPC, EIO via wrapper)",
    "D3": "state changed while down, even 8→10→deleted",
    "D4": "restarted while down (generation)",
    "D5": "checkpoint from newer version / other endpoint / two processes",
    "D7": "checkpoint for 10 000 watches",
    "U1": "a region that does not exist",
    "U2": "an endpoint with a path, query or user",
    "U3": "a project's name for its id",
    "U4": "an interval of 0, -1, NaN, 1e9 or '5s'",
    "U5": "a token and an access key together",
    "U6": "blank values and newlines in the environment",
    "U7": "a client used without async with",
    "U8": "calls from synchronous code",
    "U9": "a job id of a wrong type",
    "U10": "timeouts that contradict each other",
    "ordered": "promise: transitions come in the order of the reads, whatever the wall clock does",
    "no echo": "promise: two neighbouring transitions differ in run and status",
    "no invention": "promise: every status was in a successful answer about that very job",
    "final state": "promise: a terminal status that stays is delivered in time",
    "freshness": "promise: a healthy watch is not late, and one that is says so",
    "write once": "promise: a create or restart is carried out once at most",
    "no secret": "promise: no token, key or signature is in any text that leaves",
    "bounded": "promise: memory, sockets, tasks, queues and bytes have bounds",
}

LATER: Final = frozenset({"X11"})
"""Rows of what does not exist: files of tokens."""


class Table:
    """Notes which tests show which rows, and what became of them."""

    def __init__(self) -> None:
        self.rows: dict[str, list[str]] = defaultdict(list)
        self.outcomes: dict[str, str] = {}

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            for mark in item.iter_markers("fault"):
                for row in mark.args:
                    self.rows[row].append(item.nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            self.outcomes[report.nodeid] = report.outcome

    def lines(self) -> Iterator[str]:
        for row, fault in CATALOGUE.items():
            ids = self.rows[row]
            outcomes = {self.outcomes.get(one, "not run") for one in ids}
            verdict = "later" if row in LATER and not ids else ", ".join(sorted(outcomes)) or "NO TEST"
            yield f"{row:<12} {verdict:<9} {fault}"
            for name in dict.fromkeys(re.sub(r"\[.*", "", one) for one in ids):
                yield f"{'':<22} {name}"
        shown = len(CATALOGUE) - len(LATER) - len(self.missing)
        yield f"{shown} rows are shown, {len(LATER)} come later, without a test: {self.missing or 'none'}"

    @property
    def missing(self) -> list[str]:
        return [row for row in CATALOGUE if row not in LATER and not self.rows[row]]


def main(arguments: list[str]) -> int:
    """Runs the tests that are marked, prints the table, and gives 0 if every row is shown and holds."""
    table = Table()
    options = ["-q", "-p", "no:cacheprovider", "-m", "fault"]
    code = pytest.main([*options, *arguments], plugins=[table])
    sys.stdout.write("\n".join(["", *table.lines(), ""]))
    return int(code) or bool(table.missing)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
