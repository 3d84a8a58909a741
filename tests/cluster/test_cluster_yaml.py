"""The files of cluster/ hold what Ray's autoscaler accepts, and what a search needs. Nothing is launched in a cloud."""

import copy
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import jsonschema
import psutil
import pytest
import yaml
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr as read_by_ray
from ray.autoscaler._private.util import prepare_config, validate_config

from raysearch.distributed.growth import growth_of
from raysearch.parsing.search import parse_search

ROOT = Path(__file__).parents[2]
CLOUDS = ("gpu", "gpu-gcp")
FILES = (*CLOUDS, "local")


def read(name):
    return yaml.safe_load((ROOT / "cluster" / f"{name}.yaml").read_text())


@pytest.fixture(params=FILES)
def config(request):
    return read(request.param)


@pytest.fixture(params=CLOUDS)
def cloud(request):
    return read(request.param)


def accepted(config):
    """As ``ray up`` sees it: defaults filled in, then checked."""
    prepared = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    return prepared


def test_ray_accepts_it(config):
    accepted(config)


def test_nothing_is_paid_for_while_nothing_runs(cloud):
    prepared = accepted(cloud)
    workers = [prepared["available_node_types"][name] for name in ("gpu_train", "gpu_eval_spot")]
    assert prepared["max_workers"] == sum(w["max_workers"] for w in workers)
    assert all(w["min_workers"] == 0 for w in workers)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda c: c.update(autoscaling_mode="default"),
        lambda c: c["available_node_types"]["head"].update(instance_type="m6i.2xlarge"),
        lambda c: c["available_node_types"]["gpu_train"].update(resources={"GPU": 0.5}),
        lambda c: c["docker"].update(run_option="--shm-size=16g"),
    ],
)
def test_a_mistake_would_be_refused(cloud, spoil):
    spoil(cloud)
    with pytest.raises(jsonschema.ValidationError):
        accepted(cloud)


def test_the_head_has_no_gpu_and_workers_are_on_demand_and_spot(cloud):
    kinds = cloud["available_node_types"]
    assert kinds.pop(cloud["head_node_type"])["resources"]["GPU"] == 0
    spot = {
        name: "spot" in str(kind["node_config"]) or "preemptible" in str(kind["node_config"]) for name, kind in kinds.items()
    }
    assert spot == {"gpu_train": False, "gpu_eval_spot": True}


def test_each_gpu_is_kept_for_one_kind_of_work(cloud):
    """The names are those that a search asks for, for each GPU one (raysearch.distributed.growth)."""
    kinds = {kind.name: kind.resources for kind in growth_of(accepted(cloud)).types}
    assert kinds["gpu_train"]["training"] == kinds["gpu_train"]["GPU"] == 8
    assert kinds["gpu_eval_spot"]["evaluation"] == kinds["gpu_eval_spot"]["GPU"] == 1


def test_every_node_starts_from_the_image_and_installs_this_checkout_alone(config):
    assert (ROOT / config["file_mounts"]["~/raysearch"] / "pyproject.toml").is_file()
    assert shlex.split(config["setup_commands"][0]) == ["pip", "install", "--quiet", "--no-deps", "~/raysearch"]
    assert config["docker"]["image"] == image_of_the_dockerfile()


def image_of_the_dockerfile():
    """As its own comment names it; its base, its files and its Python are those that were tested."""
    text = (ROOT / "cluster" / "Dockerfile").read_text()
    base, python = re.search(r"^FROM rayproject/ray:([\d.]+)-py(\d+)-gpu$", text, re.MULTILINE).groups()
    assert f"ray=={base}\n" in (ROOT / "constraints.txt").read_text()
    assert f'requires-python = ">={python[0]}.{python[1:]}"' in (ROOT / "pyproject.toml").read_text()
    assert '--constraint constraints.txt ".[cluster]"' in text
    for copied in re.findall(r"^COPY --chown=\S+ (.+) \S+$", text, re.MULTILINE):
        assert all((ROOT / name).exists() for name in copied.split())
    return re.search(r"-t (\S+) \.", text).group(1)


def test_all_processes_ask_for_the_token_and_ports_stay_private(config):
    """A driver that expects no token, or a node that does not, cannot join the others."""
    assert "-e RAY_AUTH_MODE=token" in config["docker"]["run_options"]
    assert config["file_mounts"]["/home/ray/.ray/auth_token"] == "~/.ray/auth_token"
    starts = [config[f"{kind}_start_ray_commands"][-1] for kind in ("head", "worker")]
    assert not any("RAY_AUTH_MODE" in start for start in starts)
    assert "--dashboard-host=127.0.0.1" in starts[0]


def test_a_job_on_kubernetes_asks_for_what_its_groups_allow():
    """Ray's own reading of the cluster's part; that of the job and its pods is Kubernetes's business, and was not tried."""
    spec = read("rayjob")["spec"]
    cluster = spec["rayClusterSpec"]
    config = read_by_ray({"metadata": {"namespace": "default", "name": "raysearch"}, "spec": cluster})
    validate_config(config)
    growth = growth_of({**config, "head_node_type": "headgroup"})
    kinds = {kind.name: (kind.resources, kind.most) for kind in growth.types}
    for name, work in (("gpu-train", "training"), ("gpu-eval", "evaluation")):
        assert kinds[name][0][work] == kinds[name][0]["GPU"]
    command = parse_search(shlex.split(spec["entrypoint"])[2:])
    recipe = command.recipe
    assert recipe.train.workers == kinds["gpu-train"][0]["GPU"] * kinds["gpu-train"][1]
    assert recipe.evaluators.max_evaluators == kinds["gpu-eval"][0]["GPU"] * kinds["gpu-eval"][1]
    assert recipe.train.nodes.offer == recipe.evaluators.nodes.offer == "kept-gpu"
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    containers = [each for group in groups for each in group["template"]["spec"]["containers"]]
    assert {each["image"] for each in containers} == {image_of_the_dockerfile()}
    assert cluster["authOptions"] == {"mode": "token"}


CONNECT = """
import sys
from raysearch.distributed.cluster import connected
with connected(sys.argv[1]):
    print("connected")
"""


def test_the_head_s_commands_leave_a_ray_that_runs_alone_and_who_has_no_token_is_told(tmp_path_factory):
    """The commands of gpu.yaml as they stand, but for ports, dashboard and autoscaler; `ray stop` would end every Ray here."""
    home = tmp_path_factory.mktemp("home")
    folder = Path(tempfile.mkdtemp(prefix="rt"))  # sockets of Ray have long paths: no folder of pytest's
    (folder / "ray").mkdir()
    (home / ".ray").mkdir()
    (home / ".ray" / "auth_token").write_text("a" * 64)
    (home / "bin").mkdir()
    stub = home / "bin" / "ray"
    real = Path(sys.executable).with_name("ray")
    stub.write_text(f'#!/bin/sh\necho "$1" >> {home}/called\n[ "$1" = stop ] || exec {real} "$@"\n')
    stub.chmod(0o755)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = str(taken.getsockname()[1])
    (command,) = read("gpu")["head_start_ray_commands"]
    own = f"--node-ip-address=127.0.0.1 --temp-dir={folder / 'ray'} --num-cpus=1 --include-dashboard=false"
    command = command.replace("6379", port).replace("--object-manager-port=8076", own)
    command = re.sub(r"--autoscaling-config=\S+|--dashboard-host=[\d.]+", "", command)
    path = f"{home / 'bin'}:{os.environ['PATH']}"
    shared = {**os.environ, "HOME": str(home), "PATH": path, "PYTHONPATH": str(ROOT), "RAY_TMPDIR": str(folder)}
    token = {**shared, "RAY_AUTH_MODE": "token"}
    try:
        subprocess.run(["bash", "-c", command], env=token, check=True, capture_output=True)
        before = processes(folder)
        assert before
        subprocess.run(["bash", "-c", command], env=token, check=True, capture_output=True)
        assert processes(folder) >= before
        assert (home / "called").read_text().split() == ["health-check", "stop", "start", "health-check"]
        program = [sys.executable, "-c", CONNECT, f"127.0.0.1:{port}"]
        done = subprocess.run(program, env=token, capture_output=True, text=True, check=False)
        assert done.stdout == "connected\n", done.stderr
        done = subprocess.run(program, env={**shared, "RAY_AUTH_MODE": "disabled"}, capture_output=True, text=True, check=False)
        assert re.search(
            rf"no Ray cluster at 127.0.0.1:{port}: .*; if it asks for a token, set RAY_AUTH_MODE=token", done.stderr
        )
    finally:
        for process in processes(folder):
            psutil.Process(process).kill()
        shutil.rmtree(folder, ignore_errors=True)


def processes(folder):
    """Ids of the processes that are told a folder."""
    return {p.pid for p in psutil.process_iter(["cmdline"]) if any(str(folder) in word for word in p.info["cmdline"] or ())}


def test_the_readme_names_files_that_exist():
    text = (ROOT / "cluster" / "README.md").read_text()
    named = set(re.findall(r"\b(?:cluster|experiments)/[\w-]+(?:\.\w+)?", text))
    assert {
        "cluster/gpu.yaml",
        "cluster/gpu-gcp.yaml",
        "cluster/local.yaml",
        "cluster/rayjob.yaml",
        "cluster/Dockerfile",
    } <= named
    assert all((ROOT / name).is_file() for name in named)
    assert "None of them was launched" in text
