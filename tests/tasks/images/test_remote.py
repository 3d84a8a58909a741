"""Data in an object store: the same as on disk, by an S3 server that runs here."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from kept import KEPT, Kept
from pyarrow import fs
from s3_server import SECRET, s3_server, system, to_reach

from raysearch.errors import UserError
from raysearch.tasks.images import IMAGES, AugmentConfig, DataConfig, ImageClassification, TrainLoader, decoded, load_splits
from raysearch.tasks.images.remote import Remote
from raysearch.tasks.task import Splits

OWN = replace(IMAGES, img_size=16, search_images=0.2, finalist_images=0.1, test_images=0.2)
COUNTS = {"ant": 5, "bee": 6}


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with s3_server() as address:
        yield address


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A new bucket, which the environment says how to reach."""
    for name, value in to_reach(endpoint).items():
        monkeypatch.setenv(name, value)
    name = f"photos-{abs(hash(request.node.name)) % 10**9}"
    system(endpoint).create_dir(name)
    return name


def upload(folder: Path, bucket: str) -> None:
    fs.copy_files(str(folder), f"{bucket}/set", destination_filesystem=system(os.environ["AWS_ENDPOINT_URL"]))


def as_folder(source: Path, folder: Path) -> Path:
    source.rename(folder)
    return folder


def contents(splits: Splits) -> list[list[tuple[bytes, str]]]:
    return [
        [(images.decode(i).tobytes(), splits.classes[images.labels[i]]) for i in range(len(images))]
        for images in (splits.train, splits.search, splits.finalists, splits.test)
    ]


OVER_THERE = {"folder": as_folder, **{name: KEPT[name] for name in ("csv", "parquet", "arrow", "tar")}}


@pytest.mark.parametrize("kept", OVER_THERE.values(), ids=OVER_THERE.keys())
def test_a_bucket_holds_what_a_folder_holds(
    tmp_path: Path, write_classes: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, bucket: str, kept: Kept
) -> None:
    monkeypatch.setenv("RAYSEARCH_CACHE", str(tmp_path / "cache"))
    data = kept(write_classes(tmp_path / "source", COUNTS), tmp_path / "kept")
    upload(tmp_path / "kept", bucket)
    address = f"s3://{bucket}/set{'' if data.is_dir() else f'/{data.name}'}"
    config = OWN.reading(address)
    here, there = load_splits(OWN.reading(data)), load_splits(config)
    assert contents(there) == contents(here)
    assert there.classes == here.classes
    assert contents(load_splits(config, expected_digest=there.digest)) == contents(there)
    names = ImageClassification(config).item_names(there.test)
    assert names == ImageClassification(OWN.reading(data)).item_names(here.test)
    assert there.test.shown(0) == f"s3://{bucket}/set/{(names or [''])[0]}"


def test_a_picture_that_was_replaced_is_noticed(tmp_path: Path, write_classes: Callable[..., Path], bucket: str) -> None:
    upload(write_classes(tmp_path / "source", COUNTS, suffix=".bmp"), bucket)
    config = OWN.reading(f"s3://{bucket}/set")
    before = load_splits(config)
    victim = before.train.path(0)
    assert isinstance(victim, Remote)
    content = bytearray(victim.read_bytes())
    content[60] ^= 0xFF
    with system(os.environ["AWS_ENDPOINT_URL"]).open_output_stream(victim.path) as stream:
        stream.write(bytes(content))
    assert load_splits(config).digest != before.digest
    with pytest.raises(UserError, match=f"{victim} changed since this run began"):
        before.train.decode(0)


def test_loader_processes_read_a_bucket_for_themselves(
    tmp_path: Path, write_classes: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, bucket: str
) -> None:
    """Connections of an object store do not survive a fork."""
    monkeypatch.setattr(decoded, "MEMORY_SHARE", 0.0)
    source = write_classes(tmp_path / "source", COUNTS)
    upload(source, bucket)
    varied = AugmentConfig(crop_scale=(0.3, 1.0), hflip=0.5, rand_augment="rand-m9-mstd0.5-inc1")

    def batches(config: DataConfig, workers: int) -> list[torch.Tensor]:
        loader = TrainLoader(load_splits(config).train, config, varied, batch_size=4, seed=0, workers=workers)
        return [images for images, _ in loader.epoch(0)]

    there = batches(OWN.reading(f"s3://{bucket}/set"), workers=1)
    assert all(torch.equal(*pair) for pair in zip(there, batches(OWN.reading(source), workers=0), strict=True))


def test_what_cannot_be_reached_is_one_line(bucket: str, endpoint: str) -> None:
    def refused(address: str) -> str:
        with pytest.raises(UserError) as error:
            load_splits(OWN.reading(address))
        assert "\n" not in str(error.value)
        assert SECRET not in str(error.value)
        return str(error.value)

    for nowhere in ("s3://nobodys/set", f"s3://{bucket}/nothing"):
        assert f"--data is {nowhere}, where nothing is: see to the address" in refused(nowhere)
    said = "cannot be listed (Unexpected query parameter in S3 URI: 'wrong'): see to the address, to the credentials"
    assert f"s3://{bucket}/set {said}" in refused(f"s3://{bucket}/set?wrong=1")
    assert "has credentials in it: give them in the environment" in refused(f"s3://AKID:{SECRET}@{bucket}/set")
    assert "has credentials in it" in refused(f"s3://{bucket}/set?secret_key={SECRET}")
    assert "http://host/set is not read: give a folder, or an address as s3://" in refused("http://host/set")


def test_an_endpoint_may_stand_in_the_address(
    tmp_path: Path, write_classes: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, bucket: str, endpoint: str
) -> None:
    upload(write_classes(tmp_path / "source", COUNTS), bucket)
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.delenv("AWS_REGION")
    config = OWN.reading(f"s3://{bucket}/set?endpoint_override={endpoint}&region=us-east-1")
    splits = load_splits(config)
    assert sum(map(len, (splits.train, splits.search, splits.finalists, splits.test))) == sum(COUNTS.values())
    assert ImageClassification(config).data_source == config.uri
    assert str(splits.train.store.root) == f"s3://{bucket}/set"


def test_a_table_here_lists_pictures_there(tmp_path: Path, write_classes: Callable[..., Path], bucket: str) -> None:
    source = write_classes(tmp_path / "source", COUNTS)
    upload(source, bucket)
    rows = [f"s3://{bucket}/set/{p.parent.name}/{p.name},{p.parent.name}" for p in sorted(source.rglob("*.png"))]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label", *rows]))
    assert contents(load_splits(OWN.reading(tmp_path / "labels.csv"))) == contents(load_splits(OWN.reading(source)))
    (tmp_path / "labels.csv").write_text("\n".join(["path,label", *rows, "here.png,ant"]))
    with pytest.raises(UserError, match="lists images of several places"):
        load_splits(OWN.reading(tmp_path / "labels.csv"))


def test_an_address_of_google_s_store_is_read_through_its_file_system() -> None:
    """No server for it runs here: only that the right one is asked."""
    place = Remote.parse("gs://bucket/set")
    assert type(place._system()).__name__ == "GcsFileSystem"
    assert str(place / "ant") == "gs://bucket/set/ant"
