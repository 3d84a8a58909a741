"""Networks in the registry: loaded where raysearch is not installed, and registered once."""

import base64
import io
import json
import logging
import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import requests
import torch
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from PIL import ExifTags, Image
from requests.adapters import HTTPAdapter
from sklearn.datasets import load_sample_images
from small_servers import free_port
from torch import nn
from tracked_search import arch, candidate, settings
from urllib3.util import Retry

from raysearch.export import ImageClassifier
from raysearch.spaces.autoformer import AutoFormerArchitecture, AutoFormerSupernet
from raysearch.store.model_card import ModelCard
from raysearch.tracking import Network, Tracker
from raysearch.tracking.models import save_model

ELSEWHERE = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("raysearch", "ray", "timm"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
import mlflow
import numpy as np

mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model(sys.argv[2])
np.save(sys.argv[4], model.predict(np.load(sys.argv[3])))
"""


@pytest.fixture(scope="module")
def subnet() -> nn.Module:
    sizes = {"embed_dim": 32, "depth": 2, "num_heads": 2, "mlp_ratio": 2.0, "head_dim": 16, "max_relative_position": 3}
    supernet = AutoFormerSupernet(img_size=8, patch_size=2, in_chans=1, num_classes=10, **sizes)
    return supernet.extract(AutoFormerArchitecture(embed_dim=24, num_heads=(1, 2), mlp_ratio=(1.0, 2.0)))


def images(count: int) -> np.ndarray:
    return np.random.default_rng(count).standard_normal((count, 1, 8, 8)).astype(np.float32)


def test_a_registered_network_computes_the_same_where_only_mlflow_and_torch_are(database, subnet, tmp_path):
    uri = f"sqlite:///{database}"
    for _ in range(2):  # a search that is resumed registers again
        with Tracker(**settings(uri, "models")) as tracker:
            for i in range(2):
                tracker.log_candidate(candidate(i))
                alias = "champion" if i == 0 else None
                network = Network(arch(i).id, subnet, {"score": f"0.5{i}", "params": "1234"}, alias)
                tracker.register("digits", network, images=images(2), folder=tmp_path)
        assert tracker.close() == 0
    assert not list(tmp_path.glob("model-*"))

    client = MlflowClient(uri)
    versions = client.search_model_versions("name = 'digits'")
    assert {v.tags["raysearch.key"] for v in versions} == {arch(0).id, arch(1).id}
    assert len(versions) == 2
    champion = client.get_model_version_by_alias("digits", "champion")
    assert champion.tags == {"raysearch.search_id": "models", "raysearch.key": arch(0).id, "score": "0.50", "params": "1234"}
    assert champion.run_id == tracker.run_id  # the UI names it on the page of the search
    (other,) = (version for version in versions if version.version != champion.version)
    assert client.get_run(other.run_id).data.tags["raysearch.key"] == arch(1).id

    # The batch size of the example must not have become a constant.
    np.save(tmp_path / "in.npy", images(5))
    files = [str(tmp_path / "in.npy"), str(tmp_path / "out.npy")]
    subprocess.run([sys.executable, "-c", ELSEWHERE, uri, "models:/digits@champion", *files], check=True, cwd=tmp_path)
    with torch.no_grad():
        expected = subnet(torch.from_numpy(images(5))).numpy()
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), expected, atol=1e-5)


def test_a_network_of_a_search_on_a_server_is_registered(server, subnet, tmp_path):
    with Tracker(**settings(server, "models")) as tracker:
        tracker.register("on-server", Network("1234", subnet, alias="champion"), images=images(2), folder=tmp_path)
    assert tracker.close() == 0
    version = MlflowClient(server).get_model_version_by_alias("on-server", "champion")
    assert Path(version.source).name == "model"
    assert version.run_id == tracker.run_id


class Branching(nn.Module):
    """Cannot be exported: what it does depends on the values that it sees."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1)[:, :2] if x.sum() > 0 else x.flatten(1)[:, 2:4]


def test_a_network_that_cannot_be_exported_costs_a_warning(database, subnet, tmp_path, caplog):
    uri = f"sqlite:///{database}"
    with Tracker(**settings(uri, "s")) as tracker, caplog.at_level(logging.WARNING, "raysearch"):
        assert not tracker.register("digits", Network("1234", Branching()), images=images(2), folder=tmp_path)
        assert tracker.register("digits", Network("5678", subnet), images=images(2), folder=tmp_path)
    assert tracker.close() == 0
    assert "network 1234 is not registered" in caplog.text
    assert not list(tmp_path.glob("model-*"))
    client = MlflowClient(uri)
    assert client.get_run(tracker.run_id).data.tags["raysearch.unregistered.1234"] in caplog.text
    assert [v.tags["raysearch.key"] for v in client.search_model_versions("name = 'digits'")] == ["5678"]


# --- classifiers of pictures ------------------------------------------------------------------------------------------

CLASSES = ["temple", "flower", "neither"]
HOW = {
    **{"img_size": 24, "in_chans": 3, "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.2)},
    **{"interpolation": "bicubic", "crop_pct": 0.9},
}


class Colours(nn.Module):
    """Fast to export; tells the two photographs apart, and normalised from raw pixels, RGB from BGR."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3 * 16, 3)
        torch.manual_seed(3)
        nn.init.normal_(self.head.weight, std=0.3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(nn.functional.adaptive_avg_pool2d(x, 4).flatten(1))


@pytest.fixture(scope="module")
def network() -> Network:
    card = ModelCard(family="autoformer", settings={}, arch={}, id="1234", search_id="s", classes=CLASSES, preprocessing=HOW)
    return Network("1234", Colours().eval(), {"score": "0.5"}, "champion", card, "What all versions are.", "What this one is.")


@pytest.fixture(scope="module")
def classifier(network) -> ImageClassifier:
    return ImageClassifier(network.module, network.card)


@pytest.fixture(scope="module")
def model(network, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "model"
    save_model(folder, network, images(2))
    return mlflow.pyfunc.load_model(str(folder))


@pytest.fixture(scope="module")
def photographs() -> list[np.ndarray]:
    return list(load_sample_images().images)


def oriented(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = value
    return exif


def jpeg(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95)
    return file.getvalue()


def texts_of(photographs: list[np.ndarray]) -> list[str]:
    return [base64.b64encode(jpeg(pixels)).decode() for pixels in photographs]


def guesses(answers) -> list[list[tuple[str, float]]]:
    rows = answers.to_dict("records") if isinstance(answers, pd.DataFrame) else answers
    assert all((row["names"][0], row["probabilities"][0]) == (row["name"], row["probability"]) for row in rows)
    return [[(n, pytest.approx(p, abs=1e-4)) for n, p in zip(row["names"], row["probabilities"], strict=True)] for row in rows]


def expected(classifier, pictures, top: int = 3) -> list[list[tuple[str, float]]]:
    return [[(guess.name, guess.probability) for guess in found] for found in classifier.many(pictures, top=top)]


def test_pictures_of_any_form_have_the_names_that_the_search_would_give_them(
    model, classifier, photographs, tmp_path, monkeypatch
):
    files = [jpeg(pixels) for pixels in photographs]
    paths = [tmp_path / f"photo {i}.jpg" for i in range(len(files))]
    for path, file in zip(paths, files, strict=True):
        path.write_bytes(file)
    texts = texts_of(photographs)
    names = expected(classifier, files)
    assert names[0] != names[1]
    wrapped = texts[0][:76] + "\n" + texts[0][76:]  # as the command base64 writes it
    for form in (
        files,
        [str(path) for path in paths],
        paths,
        texts,
        [wrapped, f"data:image/jpeg;base64,{texts[1]}"],
        np.array(texts),
        np.array(files, dtype=object),
        pd.DataFrame({"image": texts}),
        pd.DataFrame({"image": [str(path) for path in paths], "label": ["a", "b"]}),
        pd.DataFrame({"photo": files}),
        pd.Series(texts),
        {"image": texts},
    ):
        assert names == guesses(model.predict(form))
    assert names[:1] == guesses(model.predict(texts[0])) == guesses(model.predict(files[0]))
    assert expected(classifier, files, top=1) == guesses(model.predict(files, params={"top_k": 1}))
    monkeypatch.chdir(tmp_path)
    assert names[1:] == guesses(model.predict(["photo 1.jpg"]))

    of_pixels = expected(classifier, photographs)
    for form in (photographs, np.stack(photographs), np.stack(photographs).tolist(), np.stack(photographs).astype(np.int64)):
        assert of_pixels == guesses(model.predict(form))
    assert of_pixels[:1] == guesses(model.predict(photographs[0]))
    turned = io.BytesIO()
    Image.fromarray(np.rot90(photographs[0])).save(turned, "PNG", exif=oriented(6))
    assert of_pixels[:1] == guesses(model.predict(turned.getvalue()))
    alpha = np.concatenate([photographs[0], np.full((*photographs[0].shape[:2], 1), 255, np.uint8)], axis=2)
    assert of_pixels[:1] == guesses(model.predict([alpha]))


def test_what_is_no_picture_is_refused_and_not_guessed(model, photographs, tmp_path):
    (tmp_path / "notes.txt").write_text("no picture")
    shape = (2, 24, 24, 3)
    for form, words in [
        (np.zeros(shape, np.float32), "Normalised images are not taken"),
        (np.random.default_rng(0).standard_normal(shape).tolist(), "Normalised images are not taken"),
        (np.zeros((2, 3, 24, 24), np.uint8), "numbers of shape"),  # channels first
        (photographs[0].ravel().tolist(), "numbers of shape"),
        (photographs[0].reshape(1, -1).tolist(), "numbers of shape"),
        (np.full(shape, 256), "no pixels from 0 to 255"),
        ([[1, 2], [3]], "unequal lengths"),
        (str(tmp_path / "notes.txt"), "is not a readable image"),
        ("nowhere.jpg", "is not a readable image"),
        (base64.b64encode(b"no picture").decode(), "is not a readable image"),
        (b"no picture", "the picture is not a readable image"),
        (jpeg(photographs[0])[:5000], "is not a readable image"),
        (pd.DataFrame({"a": [1], "b": [2]}), "pictures stand in a column 'image'"),
        (pd.DataFrame({"image": [0.5]}), "no pixels from 0 to 255"),
        (7, "give paths"),
        (None, "NoneType: give paths"),
        ([None], "a list of NoneType: give paths"),
        (pd.Series([None]), "give paths"),
        ([2**70], "a list of int: give paths"),
        ([photographs[0], None], "NoneType: give paths"),
        (pd.DataFrame({"image": [texts_of(photographs)[0], None]}), "(NoneType|float): give paths"),
        ([{"image": jpeg(photographs[0])}, 3], "int: give paths"),
        (pd.DataFrame([["a", "b"]], columns=["image", "image"]), "several columns 'image'"),
        ([Image.fromarray(photographs[0])], "Image: give paths"),  # its orientation and mode are not in its numbers
        ("https://example.com/photo.jpg", "is not a readable image"),
        (photographs[0][..., :2], "numbers of shape"),
    ]:
        with pytest.raises(MlflowException, match=words) as refused:
            model.predict(form)
        assert refused.value.get_http_status_code() == 400
    assert len(model.predict([])) == 0
    assert len(model.predict(photographs[0], params={"top_k": None})["names"][0]) == 3
    with pytest.raises(MlflowException, match="top_k is 0"):
        model.predict(photographs[0], params={"top_k": 0})


@pytest.fixture(scope="module")
def served(empty_database, network, tmp_path_factory):
    """Address of the champion, registered and served by MLflow where raysearch is not installed."""
    folder = tmp_path_factory.mktemp("served")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    (folder / "mlflow.db").write_bytes(empty_database.read_bytes())
    with Tracker(**settings(uri, "s")) as tracker:
        for i in range(2):
            tracker.log_candidate(candidate(i))
            tracker.register("pictures", replace(network, key=arch(i).id), images=images(2), folder=folder)
    assert tracker.close() == 0
    absent = folder / "absent"
    absent.mkdir()
    for name in ("raysearch", "ray", "timm", "torchvision", "jaxtyping"):
        (absent / f"{name}.py").write_text(f"raise ModuleNotFoundError({name!r})")
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", "models:/pictures@champion"]
    environment = {
        **os.environ,
        "MLFLOW_TRACKING_URI": uri,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",  # MLflow starts uvicorn by its name
        "PYTHONPATH": str(absent),
        "OMP_NUM_THREADS": "1",
    }
    log = folder / "server.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [*command, "--port", str(port), "--env-manager", "local", "--workers", "1"],
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            with requests.Session() as session:
                session.mount("http://", HTTPAdapter(max_retries=Retry(total=5, backoff_factor=0.1)))
                healthy = False
                while not healthy:
                    assert server.poll() is None, log.read_text()[-2000:]
                    with suppress(requests.ConnectionError):
                        healthy = session.get(f"http://127.0.0.1:{port}/health").status_code == 200
            yield uri, f"http://127.0.0.1:{port}/invocations"
        finally:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def test_a_served_version_names_the_picture_in_a_request(served, classifier, photographs):
    _, address = served
    file = jpeg(photographs[0])
    text = base64.b64encode(file).decode()
    (names,) = expected(classifier, [file])
    for body in (
        {"inputs": [text]},
        {"instances": [text]},
        {"inputs": {"image": [text]}},
        {"dataframe_split": {"columns": ["image"], "data": [[text]]}},
        {"dataframe_records": [{"image": text}]},
    ):
        answer = requests.post(address, json=body)
        assert answer.status_code == 200, answer.text
        assert [names] == guesses(answer.json()["predictions"])
    small = np.array(Image.fromarray(photographs[1]).resize((40, 30)))
    answer = requests.post(address, json={"inputs": small.tolist(), "params": {"top_k": 2}})
    assert expected(classifier, [small], top=2) == guesses(answer.json()["predictions"])
    for wrong in (small.ravel().tolist(), small.reshape(1, -1).tolist(), (small / 255).tolist(), ["bm90IGEgcGljdHVyZQ=="]):
        refused = requests.post(address, json={"inputs": wrong})
        assert refused.status_code == 400
        assert "base64 strings, or uint8 pixels of shape (height, width, chans)" in refused.json()["message"]


def test_versions_are_described_for_people_and_hold_nothing_pickled(served, network):
    uri, _ = served
    client = MlflowClient(uri)
    assert client.get_registered_model("pictures").description == network.about_model
    version = client.get_model_version_by_alias("pictures", "champion")
    assert version.description.startswith(f"{network.about}\n\nFound by [the search](#/experiments/")
    mlflow.set_tracking_uri(uri)
    try:
        folder = Path(mlflow.artifacts.download_artifacts("models:/pictures@champion"))
    finally:
        mlflow.set_tracking_uri(None)
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"]  # compiled by who loaded it
    assert {path.suffix for path in files} == {"", ".py", ".pt2", ".txt", ".yaml"}
    required = (folder / "requirements.txt").read_text().splitlines()
    assert {line.partition("==")[0] for line in required} == {"mlflow", "torch", "numpy", "pandas", "pillow"}
    assert json.loads(mlflow.models.Model.load(str(folder)).metadata["raysearch"])["classes"] == CLASSES
