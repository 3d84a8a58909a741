"""A cluster whose autoscaler starts nodes on this machine: Ray's own provider for tests, from the wheel, without ``ray stop``.

``ray.cluster_utils.AutoscalingCluster`` would end every Ray of this machine, and reads a file that the wheel lacks.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

PROVIDER = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
HEAD = "ray.head.default"
"""What that provider calls the head's type."""
HEAD_ID = f"{'f' * 51}00000"
ROOT = Path(__file__).parents[2]
COMMANDS = (
    *("cluster_synced_files", "initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands"),
    *("head_start_ray_commands", "worker_start_ray_commands", "rsync_exclude", "rsync_filter"),
)
"""Parts of a configuration that ``ray up`` would fill in."""


@contextmanager
def growing_cluster(types: dict[str, dict[str, Any]], *, v2: bool, head: dict[str, float]) -> Iterator[str]:
    """The address of a cluster that has a head alone and may start nodes of ``types``; all its processes end with the block."""
    # Sockets of Ray have long paths: no folder of pytest's.
    with tempfile.TemporaryDirectory(prefix="rg", ignore_cleanup_errors=True) as name, socket.socket() as taken:
        folder = Path(name)
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        taken.close()
        config = {
            "cluster_name": "growing",
            "max_workers": sum(kind["max_workers"] for kind in types.values()),
            "idle_timeout_minutes": 0.1,
            "upscaling_speed": 8.0,
            "provider": {
                "type": "external",
                "module": PROVIDER,
                "gcs_address": f"127.0.0.1:{port}",
                "head_node_id": HEAD_ID,
                "launch_multiple": True,
                "use_node_id_as_ip": True,  # all nodes have this machine's address
                "disable_node_updaters": True,  # no ssh
            },
            "head_node_type": HEAD,
            "available_node_types": {HEAD: {"resources": head, "node_config": {}, "max_workers": 0}}
            | {kind: {"node_config": {}, "min_workers": 0, **values} for kind, values in types.items()},
            **{mapping: {} for mapping in ("auth", "docker", "file_mounts")},
            **{commands: [] for commands in COMMANDS},
            "file_mounts_sync_continuously": False,
        }
        path = folder / "cluster.json"
        path.write_text(json.dumps(config))
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "RAY_FAKE_CLUSTER": "1",
            "RAY_enable_autoscaler_v2": "1" if v2 else "0",
            "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID,
            "RAY_CLOUD_INSTANCE_ID": HEAD_ID,
            "RAY_NODE_TYPE_NAME": HEAD,
            "AUTOSCALER_UPDATE_INTERVAL_S": "1",
            "RAY_TMPDIR": name,
        }
        (folder / "ray").mkdir()
        options = [f"--port={port}", "--node-ip-address=127.0.0.1", f"--temp-dir={folder / 'ray'}", "--include-dashboard=false"]
        options += [f"--num-cpus={head['CPU']:g}", "--num-gpus=0", f"--autoscaling-config={path}"]
        ray = Path(sys.executable).with_name("ray")
        with (folder / "head.log").open("w") as log:
            started = subprocess.Popen([ray, "start", "--head", "--block", *options], env=environment, stdout=log, stderr=log)
            try:
                _wait_for(started, folder / "head.log")
                yield f"127.0.0.1:{port}"
            finally:
                for process in psutil.process_iter(["cmdline"]):  # all are told the folder
                    if any(name in word for word in process.info["cmdline"] or ()):
                        process.kill()
                started.wait()


def _wait_for(started: subprocess.Popen[bytes], log: Path) -> None:
    while "Ray runtime started" not in (said := log.read_text()):
        assert started.poll() is None, said
        time.sleep(0.1)
