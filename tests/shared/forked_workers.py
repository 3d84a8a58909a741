"""Ray's worker processes forked from one that has imported their libraries, so that a test run does not import them 400 times.

A process of the cluster that is to hold an actor imports PyTorch, Ray Train or Tune and pandas first: 3 to 6 seconds of one
processor, which was more than half of a test run. Here it takes 0.05. What is forked holds libraries and nothing of raysearch,
whose modules each actor imports in its own order; it is a process of its own in every other way.

Ray starts a worker with the command that this file gives it, in place of its own ``setup_worker.py``. The command asks the
server of its raylet and job for a fork. Where there is none (other nodes, other drivers, what a raylet starts before there is a
job) it starts the worker as Ray does.

Both numbers are part of the address as Ray's C++ reads them from the environment once, when it is loaded.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

LIBRARIES = (
    *(
        "ray.train.torch",
        "ray.train.collective",
        "ray.tune",
        "ray.data",
        "torch._dynamo",
        "torch.distributed",
        "pyarrow.parquet",
    ),
    *("sklearn.datasets", "torchvision.transforms", "timm.data", "timm.optim", "timm.utils", "PIL.Image", "scipy.stats"),
)
"""What actors of the tests import."""


def _address(raylet: str | int, job: str) -> str:
    """Of a socket without a file, which is gone with its owner."""
    return f"\0raysearch-forks-{raylet}-{job}"


@contextmanager
def forked_workers(raylet: int, job: str) -> Generator[None]:
    """Fork what ``raylet`` starts for ``job`` from here on, if it was started with this file as ``setup_worker_path``."""
    command = [sys.executable, __file__, "--serve", _address(raylet, job)[1:]]
    environment = {**os.environ, "RAY_RAYLET_PID": str(raylet), "RAY_JOB_ID": job}
    pipe = subprocess.PIPE
    # In a session of its own: Ctrl-C is for who runs the tests. The end of the pipe is the end of the server.
    with subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, start_new_session=True) as server:
        assert server.stdout is not None
        assert server.stdin is not None
        assert server.stdout.readline() == b"ready\n"
        yield
        assert server.poll() is None  # or else all since then was slow, and nobody would know
        server.stdin.close()


@contextmanager
def plain_workers(raylet: int) -> Generator[None]:
    """Have ``raylet`` start workers as Ray does during the ``with`` block, for who measures them."""
    with socket.socket(socket.AF_UNIX) as mark:
        mark.bind(_address(raylet, _PLAIN))
        mark.listen()
        yield


_PLAIN = "plain"
"""In the place of a job: whoever listens there wants no forks."""


def _listens(address: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(address) == 0


def _serve(address: str) -> None:
    """Fork for everyone who asks, until standard input ends; returns in the forks, which are what was asked for by then."""
    for library in LIBRARIES:
        importlib.import_module(library)
    gc.freeze()  # or else the first collection of each fork would copy all pages
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the forks
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("\0" + address)
        listener.listen(64)
        print("ready", flush=True)
        while True:
            readable, _, _ = select.select([listener, sys.stdin], [], [])
            if sys.stdin in readable:
                sys.exit()
            asked, _ = listener.accept()
            with asked:
                content, streams, _, _ = socket.recv_fds(asked, 1 << 16, 3)
                while not content.endswith(b"\n"):
                    content += asked.recv(1 << 16)
                if os.fork() == 0:
                    break
                for stream in streams:
                    os.close(stream)
    os.setpgid(0, 0)  # Ray kills a worker with its group
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    folder, environment, arguments = json.loads(content)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    _work(arguments)


def _work(arguments: list[str]) -> None:
    """Be a worker: what Ray's ``setup_worker.py`` does, without a new interpreter."""
    from ray._private.runtime_env.context import RuntimeEnvContext
    from ray._private.utils import update_envs
    from ray._private.workers.setup_worker import parser

    settings, arguments = parser.parse_known_args(arguments)
    update_envs(RuntimeEnvContext.deserialize(settings.serialized_runtime_env_context or "{}").env_vars)
    sys.argv, sys.path[0] = arguments, str(Path(arguments[0]).parent)
    runpy.run_path(arguments[0], run_name="__main__")


def _ask(arguments: list[str]) -> None:
    """Have a worker forked that takes over standard input and outputs, or become one that is not."""
    environment = dict(os.environ)
    raylet, job = environment["RAY_RAYLET_PID"], environment["RAY_JOB_ID"]
    with socket.socket(socket.AF_UNIX) as server:
        if _listens(_address(raylet, _PLAIN)) or server.connect_ex(_address(raylet, job)) != 0:
            from ray._private.workers import setup_worker

            assert setup_worker.__file__
            os.execv(sys.executable, [sys.executable, setup_worker.__file__, *arguments])
        content = json.dumps([str(Path.cwd()), environment, arguments]) + "\n"
        socket.send_fds(server, [content.encode()], [0, 1, 2])
        server.recv(1)  # until both have closed it


if __name__ == "__main__":
    if sys.argv[1] == "--serve":
        _serve(sys.argv[2])
    else:
        _ask(sys.argv[1:])
