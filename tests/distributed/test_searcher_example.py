"""The example of docs/tune.md runs as it is printed."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "tune.md"


@pytest.mark.usefixtures("cluster")
def test_the_example_of_the_documentation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (block,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    script = tmp_path / "example.py"
    script.write_text(block)
    monkeypatch.chdir(tmp_path)
    names = runpy.run_path(str(script), run_name="__main__")
    assert not names["results"].errors
    assert len({result.config["id"] for result in names["results"]}) == 12
    assert names["best"].metrics["accuracy"] > 0.8
    assert names["best"].config["arch"].keys() == {"width"}
    assert str(names["best"].metrics["accuracy"]) in capsys.readouterr().out
