#!/usr/bin/env python3
"""
Makes docs/compatibility.md of what the checks printed: page.py RESULTS, a folder with one file for each of java, go, python
and mqadmin. The page goes to the standard output. Exit code 1 when features.tsv and the checks that ran name each other wrongly.
"""

import os
import re
import sys
import textwrap

HERE = os.path.dirname(os.path.abspath(__file__))
CLIENTS = {"java": "Java 5.5.0 (remoting)", "go": "Go v2.1.2", "python": "Python 0.4.4 (C++ core)"}
HEAD = """\
# What official clients were seen to do

Made by `.ci/interop` from a run of the checks of `interop/` against `sluice dev`, with every client unmodified; the same checks pass on Apache
RocketMQ 5.5.0. "yes": all checks of that feature passed. "–": the client has no such feature, or no check asks for it. `interop/features.tsv`
says which checks stand behind a row.
"""


def results(folder, name):
    """Verdict by check, in the order in which they came."""
    with open(os.path.join(folder, name), encoding="utf-8") as lines:
        found = re.findall(r"^(?:\x1b\[0m)*(PASS|FAIL) ([^:]+):", lines.read(), re.MULTILINE)
    return {check: verdict == "PASS" for verdict, check in found}


def features():
    with open(os.path.join(HERE, "features.tsv"), encoding="utf-8") as lines:
        rows = [line.rstrip("\n").split("\t") for line in lines if line.strip() and not line.startswith("#")]
    header, *rows = rows
    if header != ["feature", *CLIENTS] or any(len(row) != len(header) for row in rows):
        sys.exit(f"features.tsv: expected the columns feature, {', '.join(CLIENTS)} in every line")
    return [(feature, dict(zip(CLIENTS, ([] if cell == "-" else cell.split() for cell in cells)))) for feature, *cells in rows]


def cell(checks, seen):
    if not checks:
        return "–"
    return "yes" if all(seen.get(check) for check in checks) else "**no**"


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__.strip())
    seen = {client: results(sys.argv[1], client) for client in CLIENTS}
    commands = results(sys.argv[1], "mqadmin")
    rows = features()
    problems = [] if commands else ["mqadmin: no verdict"]
    for client in CLIENTS:
        named = {check for _, checks in rows for check in checks[client]}
        problems += [f"{client}: the check {check} ran, and no feature names it" for check in sorted(set(seen[client]) - named)]
        problems += [f"{client}: a feature names {check}, which did not run" for check in sorted(named - set(seen[client]))]

    print(HEAD)
    print("| feature | " + " | ".join(CLIENTS.values()) + " |")
    print("|---|" + "---|" * len(CLIENTS))
    for feature, checks in rows:
        print(f"| {feature} | " + " | ".join(cell(checks[client], seen[client]) for client in CLIENTS) + " |")
    verdicts = ", ".join(name if passed else f"**not {name}**" for name, passed in commands.items())
    print("\n" + textwrap.fill(f"Verdicts on `mqadmin` 5.5.0: {verdicts}.", 150, break_on_hyphens=False) + "\n")
    with open(os.path.join(HERE, "compatibility-notes.md"), encoding="utf-8") as notes:
        print(notes.read().rstrip("\n"))
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
