"""The last lines of `make test`: coverage by package, tests, total time.

    python -m tests.summary STARTED

STARTED: seconds since the epoch. Reads `.coverage` and pytest's JUnit report. Exit status 1 where a
package's branch coverage is below its minimum.
"""

import json
import sys
import time
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree as ET

from coverage import Coverage

REPORT = Path(".pytest_cache") / "tests.xml"
DETAILS = Path(".pytest_cache") / "coverage.json"
# what runs in processes of its own (supervisor, workers, killed commands) is not measured
MINIMUM = {"model_code": 95.0, "infra": 90.0, "tasks": 90.0, "flows": 90.0, "tests": 90.0}


def coverage_by_package() -> dict[str, float]:
    """Percent of lines and branches covered, by top-level package."""
    measured = Coverage()
    measured.load()
    measured.json_report(outfile=str(DETAILS))
    covered, possible = Counter[str](), Counter[str]()
    for path, found in json.loads(DETAILS.read_text())["files"].items():
        package, numbers = Path(path).parts[0], found["summary"]
        covered[package] += numbers["covered_lines"] + numbers["covered_branches"]
        possible[package] += numbers["num_statements"] + numbers["num_branches"]
    return {name: 100.0 * covered[name] / possible[name] for name in MINIMUM if possible[name]}


def counts() -> dict[str, int]:
    """Tests passed, failed and skipped."""
    suite = ET.parse(REPORT).getroot()[0]  # noqa: S314  our own file
    total, failed, errors, skipped = (
        int(suite.attrib[name]) for name in ("tests", "failures", "errors", "skipped")
    )
    bad = failed + errors
    return {"passed": total - bad - skipped, "failed": bad, "skipped": skipped}


def main(started: float) -> int:
    """Print the summary; 1 where a package is below its minimum."""
    found = coverage_by_package()
    low = [name for name, least in MINIMUM.items() if found.get(name, 0.0) < least]
    for name, least in MINIMUM.items():
        mark = "  TOO LOW" if name in low else ""
        print(f"coverage {name:<10} {found.get(name, 0.0):5.1f}%  (at least {least:g}%){mark}")
    minutes, seconds = divmod(int(time.time() - started), 60)
    tests = counts()
    print(f"total time {minutes}:{seconds:02d} min")
    print(", ".join(f"{number} {word}" for word, number in tests.items()))
    return 1 if low or tests["failed"] else 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1])))
