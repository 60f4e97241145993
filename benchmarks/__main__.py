"""Run the cases, print the table: `python -m benchmarks --help`."""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import sys
from collections.abc import Sequence
from statistics import median
from typing import Any

import uvloop

from .cases import CASES
from .harness import LOAD_CORE, SERVER_CORE, Case, Server, table
from .machine import describe

KINDS = ("floor", "perdure")
Figures = dict[str, list[float]]


def main() -> int:
    options = parse_arguments()
    os.sched_setaffinity(0, {LOAD_CORE})
    raise_open_files_limit()
    results: dict[str, dict[str, Figures]] = {}
    failures = []
    for name in options.cases or CASES:
        results[name] = {}
        for kind in options.server or KINDS:
            try:
                results[name][kind] = run_case(CASES[name], kind, options)
            except Exception as error:
                failures.append(f"{name} on {kind}: {type(error).__name__}: {error}")
                progress(failures[-1])
    facts = describe(options.data) | {
        "method": f"server on core {SERVER_CORE}, load on core {LOAD_CORE}, loopback; fresh server process "
        f"and data folder for each run; median (lowest - highest) of {options.runs} runs, "
        f"{options.seconds:g} s each"
    }
    if options.json:
        print(json.dumps({"facts": facts, "results": results, "failures": failures}, indent=1))
    else:
        print_report(facts, results, failures)
    return 1 if failures else 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure perdure beside a floor.")
    parser.add_argument("cases", nargs="*", metavar="case", help=f"all, or some of {', '.join(CASES)}")
    parser.add_argument("--json", action="store_true", help="print every run's figures as JSON")
    parser.add_argument("--seconds", type=float, default=10, help="length of one run where it has one (10)")
    parser.add_argument("--runs", type=int, default=3, help="runs of each case on each server (3)")
    parser.add_argument("--server", action="append", choices=KINDS, help="only this server")
    parser.add_argument("--data", metavar="DIR", help="where the data folders go; must be a real disk")
    options = parser.parse_args()
    if unknown := set(options.cases) - set(CASES):
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    return options


def raise_open_files_limit() -> None:
    """Thousands of connections and databases need more than the usual 1,024; servers inherit it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def run_case(case: Case, kind: str, options: argparse.Namespace) -> Figures:
    """All runs of a case on one kind of server."""
    figures: Figures = {}
    for run in range(1, options.runs + 1):
        progress(f"{case.name} on {kind}, run {run} of {options.runs}")
        server = Server(kind, case.room, options.data)
        try:
            server.start()
            gc.collect()
            gc.disable()  # a collection over a million kept frames would look like the server's latency
            for name, value in uvloop.run(case.measure(server, options.seconds)).items():
                figures.setdefault(name, []).append(value)
        finally:
            gc.enable()
            server.remove()
        progress("   " + ", ".join(f"{name}: {number(values[-1])}" for name, values in figures.items()))
    return figures


def print_report(facts: dict[str, str], results: dict[str, Any], failures: Sequence[str]) -> None:
    for name, value in facts.items():
        print(f"- {name}: {value}")
    print()
    rows = [row for name, by_kind in results.items() for row in case_rows(CASES[name], by_kind)]
    print(table(("case", "figure", "aim", "perdure", "(range)", "reached", "floor", "perdure / floor"), rows))
    print()
    for name in results:
        print(f"- {name}: {CASES[name].claim}")
    for failure in failures:
        print(f"- FAILED: {failure}")


def case_rows(case: Case, by_kind: dict[str, Figures]) -> list[list[str]]:
    """The table's rows of one case: a figure each."""
    ours, floor = by_kind.get("perdure", {}), by_kind.get("floor", {})
    rows = []
    for figure in list(ours) + [figure for figure in floor if figure not in ours]:
        aim = case.aims.get(figure)
        row = [case.name, figure, str(aim or ""), "", "", "", "", ""]
        if figure in ours:
            value = median(ours[figure])
            row[3:5] = number(value), f"({number(min(ours[figure]))} - {number(max(ours[figure]))})"
            row[5] = "" if aim is None else "yes" if aim.reached(value) else "NO"
        if figure in floor:
            row[6] = number(median(floor[figure]))
        if figure in ours and figure in floor and median(floor[figure]):
            row[7] = f"{median(ours[figure]) / median(floor[figure]):.2f}"
        rows.append(row)
    return rows


def number(value: float) -> str:
    """Three digits that count, or whole thousands."""
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
