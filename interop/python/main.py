"""Judges a RocketMQ-protocol broker with the Python client over Apache's C++ client core, unmodified."""

import argparse
import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import checks
from world import NAMESRV, Failed, World

# Name, hard limit in seconds, body. A body returns what was seen, or raises Failed with the reason.
CHECKS = {
    "share": (120, checks.share),
    "broadcast": (90, checks.broadcast),
    "auto-create": (60, checks.auto_create),
    "tags": (90, checks.tags),
    "restart": (90, checks.restart),
    "retry": (90, checks.retry),
    "delay-levels": (90, checks.delay_levels),
    "orderly": (120, checks.orderly),
    "pull": (60, checks.pull),
    "bodies": (90, checks.bodies),
}
RESULT = "interop-result "
# What the core prints when one of its threads is stopped at the wrong moment, which is none of the broker's doing.
CORE_ABORT = "boost::thread_interrupted"
ATTEMPTS = 3


def main():
    parser = argparse.ArgumentParser(usage="[--list] [--jobs N] [check ...]   (NAMESRV_ADDR, default 127.0.0.1:9876)")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--jobs", type=int, default=4)
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    parser.add_argument("check", nargs="*")
    options = parser.parse_args()
    if options.list:
        print("\n".join(CHECKS))
        return 0
    if options.alone:
        return alone(options.alone)
    unknown = [name for name in options.check if name not in CHECKS]
    if unknown or options.jobs < 1:
        parser.error("no check is called " + " ".join(unknown) if unknown else "--jobs needs a number from 1")
    chosen = options.check or list(CHECKS)
    if not reachable():
        print(f"no name server answers at {NAMESRV} (NAMESRV_ADDR)\ninterop python: 0 passed, {len(chosen)} failed")
        return 1
    with ThreadPoolExecutor(options.jobs) as lanes:
        passed = sum(lanes.map(run_one, chosen))
    print(f"interop python: {passed} passed, {len(chosen) - passed} failed")
    return 0 if passed == len(chosen) else 1


def reachable():
    host, port = NAMESRV.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), 3).close()
        return True
    except OSError:
        return False


def run_one(name):
    """Each check has a process of its own: the client's core shares connections within one, and a crash of it ends but one check."""
    start = time.monotonic()
    for _ in range(ATTEMPTS):
        line = attempt(name)
        if CORE_ABORT not in line:
            break
        print(f"note {name}: the client's core aborted its process while a consumer ended", flush=True)
    print(f"{' '.join(line.split())} ({time.monotonic() - start:.1f} s)", flush=True)
    return line.startswith("PASS")


def attempt(name):
    limit = CHECKS[name][0]
    command = [sys.executable, os.path.abspath(__file__), "--alone", name]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    try:
        output, _ = child.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        child.kill()
        output, _ = child.communicate()
        return f"FAIL {name}: not done within {limit} s: {output[-300:]}"
    results = [line for line in output.splitlines() if line.startswith(RESULT)]
    return results[-1][len(RESULT):] if results else f"FAIL {name}: its process ended with {child.returncode}: {output[-600:]}"


def alone(name):
    world = World(name)
    try:
        line = f"PASS {name}: {CHECKS[name][1](world)}"
    except Failed as failed:
        line = f"FAIL {name}: {failed}"
    except Exception as thrown:  # What a check did not expect is its failure, with the place.
        trace = thrown.__traceback__
        while trace.tb_next:
            trace = trace.tb_next
        line = f"FAIL {name}: {thrown!r} at {os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}"
    # First, because the core sometimes aborts while its clients end, and how they end is not what a check is about.
    print("\n" + RESULT + " ".join(line.split()), flush=True)
    world.close()
    # The core's threads may still call back into an interpreter that is going down.
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
