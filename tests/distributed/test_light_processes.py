"""What a process pays for before it has a scorer: pool and evaluators start without PyTorch."""

from __future__ import annotations

import subprocess
import sys


def test_pool_and_evaluators_import_no_torch() -> None:
    code = "import sys, raysearch.distributed.evaluators, raysearch.distributed.scoring; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
