"""cluster/gpu.yaml holds what Ray's autoscaler accepts, and what a search needs. Nothing is launched."""

import copy
import re
import shlex
import tomllib
from pathlib import Path

import jsonschema
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parents[2]


@pytest.fixture
def config():
    return yaml.safe_load((ROOT / "cluster" / "gpu.yaml").read_text())


def accepted(config):
    """As ``ray up`` sees it: defaults filled in, then checked."""
    prepared = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    return prepared


def test_ray_accepts_it(config):
    prepared = accepted(config)
    workers = [prepared["available_node_types"][name] for name in ("gpu_train", "gpu_eval_spot")]
    assert prepared["max_workers"] == sum(w["max_workers"] for w in workers)
    assert all(w["min_workers"] == 0 for w in workers)  # nothing is paid for while nothing runs


@pytest.mark.parametrize(
    "spoil",
    [
        lambda c: c.update(autoscaling_mode="default"),
        lambda c: c["available_node_types"]["head"].update(instance_type="m6i.2xlarge"),
        lambda c: c["available_node_types"]["gpu_train"].update(resources={"GPU": 0.5}),
        lambda c: c["docker"].update(run_option="--shm-size=16g"),
    ],
)
def test_a_mistake_would_be_refused(config, spoil):
    spoil(config)
    with pytest.raises(jsonschema.ValidationError):
        accepted(config)


def test_the_head_has_no_gpu_and_workers_are_on_demand_and_spot(config):
    kinds = config["available_node_types"]
    head = kinds.pop(config["head_node_type"])
    assert head["resources"]["GPU"] == 0
    assert not re.match(r"[pg]\d", head["node_config"]["InstanceType"])
    markets = {name: kind["node_config"].get("InstanceMarketOptions", {}).get("MarketType") for name, kind in kinds.items()}
    assert markets == {"gpu_train": None, "gpu_eval_spot": "spot"}
    assert all(kind["resources"]["GPU"] >= 1 and kind["node_config"]["InstanceType"][0] in "pg" for kind in kinds.values())


def test_each_gpu_is_kept_for_one_kind_of_work(config):
    """The names are those that the trainer and the pool ask for (raysearch.distributed.cluster.share_of)."""
    resources = {name: kind["resources"] for name, kind in config["available_node_types"].items()}
    assert resources["gpu_train"]["training"] == resources["gpu_train"]["GPU"]
    assert resources["gpu_eval_spot"]["evaluation"] == resources["gpu_eval_spot"]["GPU"]


def test_every_node_installs_the_tested_package(config):
    """The paths in the setup command exist in the checkout that is copied, and Ray and Python are the tested ones."""
    ((remote, local),) = config["file_mounts"].items()
    assert (ROOT / local / "pyproject.toml").is_file()
    install = shlex.split(config["setup_commands"][0])
    assert install[:2] == ["pip", "install"]
    assert install[-1] == remote
    constraints = install[install.index("--constraint") + 1]
    tested = (ROOT / Path(constraints).relative_to(remote)).read_text()
    ray, python = re.fullmatch(r"rayproject/ray:([\d.]+)-py(\d+)-gpu", config["docker"]["image"]).groups()
    assert f"ray=={ray}\n" in tested
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"] == f">={python[0]}.{python[1:]}"


def test_all_processes_agree_about_authentication_and_ports_stay_private(config):
    """A driver that expects a token, or a node that does, cannot join the others."""
    starts = [config[f"{kind}_start_ray_commands"][-1] for kind in ("head", "worker")]
    assert all(start.startswith("RAY_AUTH_MODE=disabled ray start ") for start in starts)
    assert "-e RAY_AUTH_MODE=disabled" in config["docker"]["run_options"]
    assert "--dashboard-host=127.0.0.1" in starts[0]


def test_the_readme_names_files_that_exist():
    text = (ROOT / "cluster" / "README.md").read_text()
    named = set(re.findall(r"\b(?:cluster|experiments)/\w+\.\w+", text))
    assert {"cluster/gpu.yaml", "experiments/search.py"} <= named
    assert all((ROOT / name).is_file() for name in named)
    assert "It has not been launched" in text
