"""The report of a search that was broken off."""

from __future__ import annotations

import re
import signal
import threading
from pathlib import Path

from search_script import start


def test_a_search_that_was_broken_off_leaves_a_report_of_what_was_known(finished_search: Path, tmp_path: Path) -> None:
    report = tmp_path / "run" / "report.html"
    process = start(
        *("digits", "--algorithm", "evolution", "--supernet", str(finished_search / "supernet.safetensors")),
        *("--output", str(report.parent)),
        *("--search.generations", "400", "--search.population", "4", "--search.mutations", "2", "--search.crossovers", "1"),
    )
    pulse = threading.Event()
    while not report.exists():
        assert process.poll() is None, process.communicate()
        pulse.wait(0.05)
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert process.returncode == 130
    page = report.read_text()
    assert page.endswith("</html>\n")
    assert "<h1>digits: in progress</h1>" in page
    generation, candidates = (
        re.search(pattern, page) for pattern in (r"generation (\d+) of 400<", r"([\d,]+) of 1,600 candidates ")
    )
    assert generation is not None
    assert candidates is not None
    assert int(candidates[1].replace(",", "")) == 4 * (int(generation[1]) - 1)
    assert "search.py digits --algorithm evolution" in page.split("How to repeat it")[1]
