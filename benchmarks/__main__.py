"""Run the cases, print the table: `python -m benchmarks --help`."""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import uvloop

from . import reference
from .cases import CASES
from .harness import LOAD_CORE, SERVER_CORE, Case, Server, table
from .machine import describe

KINDS = ("floor", *reference.KINDS, "perdure")
Figures = dict[str, list[float]]

LOAD_CPU = "load CPU, % of its core"
LOAD_CPU_PERCENT_MAX = 80
"""Above it the load may be what limits a case; its figures are marked."""


def main() -> int:
    options = parse_arguments()
    os.sched_setaffinity(0, {LOAD_CORE})
    raise_open_files_limit()
    results: dict[str, dict[str, Figures]] = {}
    failures: list[str] = []
    for name in options.cases:
        results[name] = run_case(CASES[name], options, failures)
    facts = describe(options.data) | {
        "method": f"server on core {SERVER_CORE}, load on core {LOAD_CORE}, loopback; fresh server process "
        f"and data folder for each run; the servers take turns; median (lowest - highest) of {options.runs} runs, "
        f"at most {options.seconds:g} s each"
    }
    if any(kind in reference.KINDS for by_kind in results.values() for kind in by_kind):
        facts["reference server"] = reference.describe(options.npm)
    if options.json:
        marked = {name: [kind for kind in by_kind if load_limits(by_kind[kind])] for name, by_kind in results.items()}
        print(json.dumps({"facts": facts, "results": results, "load_limits": marked, "failures": failures}, indent=1))
    else:
        print_report(facts, results, failures)
    return 1 if failures else 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure perdure beside others.")
    parser.add_argument(
        "cases", nargs="*", metavar="case", help=f"all, or some of {', '.join(CASES)}; `streams` is all of streams_*"
    )
    parser.add_argument("--json", action="store_true", help="print every run's figures as JSON")
    parser.add_argument("--seconds", type=float, default=10, help="length of one run where it has one (10)")
    parser.add_argument("--runs", type=int, default=3, help="runs of each case on each server (3)")
    parser.add_argument("--server", action="append", choices=KINDS, help="only this server")
    parser.add_argument("--data", metavar="DIR", help="where the data folders go; must be a real disk")
    parser.add_argument(
        "--npm",
        metavar="DIR",
        type=Path,
        default=reference.NPM_FOLDER,
        help="the folder whose node_modules has the reference server (tests/npm)",
    )
    options = parser.parse_args()
    if unknown := [word for word in options.cases if not meant(word)]:
        parser.error(f"no such case: {', '.join(unknown)}")
    options.cases = list(dict.fromkeys(name for word in options.cases for name in meant(word))) or list(CASES)
    return options


def meant(word: str) -> list[str]:
    """The cases that a word of the command line means: the one of this name, else all whose names begin so."""
    return [word] if word in CASES else [name for name in CASES if name.startswith(f"{word}_")]


def raise_open_files_limit() -> None:
    """Thousands of connections and databases need more than the usual 1,024; servers inherit it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def run_case(case: Case, options: argparse.Namespace, failures: list[str]) -> dict[str, Figures]:
    """All runs of a case, the servers in turn, so that a noisy minute meets them all.

    A server that failed is not tried again, and what it did before is not counted.
    """
    kinds = [kind for kind in (*case.beside, "perdure") if kind in (options.server or KINDS)]
    by_kind: dict[str, Figures] = {kind: {} for kind in kinds}
    for run in range(1, options.runs + 1):
        for kind in [kind for kind in kinds if kind in by_kind]:
            progress(f"{case.name} on {kind}, run {run} of {options.runs}")
            try:
                figures = run_once(case, kind, options)
            except Exception as error:
                failures.append(f"{case.name} on {kind}: {type(error).__name__}: {error}")
                progress(failures[-1])
                del by_kind[kind]
                continue
            for name, value in figures.items():
                by_kind[kind].setdefault(name, []).append(value)
            progress("   " + ", ".join(f"{name}: {number(value)}" for name, value in figures.items()))
    return by_kind


def run_once(case: Case, kind: str, options: argparse.Namespace) -> dict[str, float]:
    """One run on a server of its own."""
    server = Server(kind, case.room, options.data, options.npm)
    try:
        server.start()
        gc.collect()
        gc.disable()  # a collection over a million kept frames would look like the server's latency
        return uvloop.run(case.measure(server, options.seconds))
    finally:
        gc.enable()
        server.remove()


def load_limits(figures: Figures) -> bool:
    """Whether the load used so much of its core that it, not the server, may be the limit."""
    return any(median(values) > LOAD_CPU_PERCENT_MAX for name, values in figures.items() if name.endswith(LOAD_CPU))


def print_report(facts: dict[str, str], results: dict[str, dict[str, Figures]], failures: Sequence[str]) -> None:
    for name, value in facts.items():
        print(f"- {name}: {value}")
    for beside in dict.fromkeys(CASES[name].beside for name in results):
        rows = [
            row for name in results if CASES[name].beside == beside for row in case_rows(CASES[name], results[name])
        ]
        others = [column for kind in beside for column in (kind, "(range)", f"perdure / {kind}")]
        print()
        print(table(("case", "figure", "aim", "perdure", "(range)", "reached", *others), rows))
    print()
    if any(load_limits(figures) for by_kind in results.values() for figures in by_kind.values()):
        print(
            f"\\* the load used more than {LOAD_CPU_PERCENT_MAX} % of its core: it may be the limit, not the server"
        )
        print()
    for name in results:
        print(f"- {name}: {CASES[name].claim}")
    for failure in failures:
        print(f"- FAILED: {failure}")


def case_rows(case: Case, by_kind: dict[str, Figures]) -> list[list[str]]:
    """The table's rows of one case: a figure each."""
    marks = {kind: " *" if load_limits(figures) else "" for kind, figures in by_kind.items()}
    rows = []
    for figure in dict.fromkeys(figure for kind in ("perdure", *case.beside) for figure in by_kind.get(kind, {})):
        aim = case.aims.get(figure)
        ours = by_kind.get("perdure", {}).get(figure)
        row = [case.name, figure, str(aim or ""), *median_and_range(ours, marks.get("perdure", ""))]
        row.append("" if aim is None or ours is None else "yes" if aim.reached(median(ours)) else "NO")
        for kind in case.beside:
            theirs = by_kind.get(kind, {}).get(figure)
            row += median_and_range(theirs, marks.get(kind, ""))
            row.append(f"{median(ours) / median(theirs):.2f}" if ours and theirs and median(theirs) else "")
        rows.append(row)
    return rows


def median_and_range(values: list[float] | None, mark: str) -> list[str]:
    """Two cells: the median with its mark, and the lowest and the highest."""
    if not values:
        return ["", ""]
    return [number(median(values)) + mark, f"({number(min(values))} - {number(max(values))})"]


def number(value: float) -> str:
    """Three digits that count, or whole thousands."""
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
