"""A teacher of timm's: its weights from a file, its own view of the images, one line for what does not fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor

from raysearch.errors import SettingError, UserError
from raysearch.jobs.teaching import check_cached, taught
from raysearch.recipes.autoformer import DIGITS_RECIPE
from raysearch.tasks.images.classification import ImageClassification
from raysearch.tasks.images.config import DataConfig
from raysearch.tasks.images.images import ArrayImages
from raysearch.training.config import DistillConfig
from raysearch.training.shards import Shards
from raysearch.training.teacher import (
    SoftLabels,
    TeacherConfig,
    TeacherFile,
    find_teacher,
    logits_of,
    read_logits,
    write_logits,
)

NAME = "test_resnet"
CPU = torch.device("cpu")
COLOUR = {"in_chans": 3, "mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}
GREY = {"in_chans": 1, "mean": (0.3,), "std": (0.4,)}


def saved(path: Path, *, name: str = NAME, **arguments: Any) -> Any:
    """A network with random weights, saved as timm's training script does; returned in evaluation mode."""
    torch.manual_seed(0)
    network = timm.create_model(name, **arguments)
    torch.nn.init.normal_(network.get_classifier().weight)  # outputs that differ from image to image
    torch.save({"state_dict": network.state_dict(), "epoch": 3}, path)
    return network.eval()


def pixels(count: int, chans: int, side: int) -> Tensor:
    return torch.rand(count, chans, side, side, generator=torch.Generator().manual_seed(1))


def normalised(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    return (images - torch.tensor(mean).view(1, -1, 1, 1)) / torch.tensor(std).view(1, -1, 1, 1)


def test_it_sees_images_in_its_own_normalisation_and_size_and_stays_as_it_is(tmp_path: Path) -> None:
    network = saved(tmp_path / "net.pth", num_classes=5)
    found = find_teacher(TeacherConfig(NAME, tmp_path / "net.pth"), outputs=5, in_chans=3)
    found.write(tmp_path / "teacher.safetensors")  # how it travels
    teacher = TeacherFile.read(tmp_path / "teacher.safetensors").build(COLOUR, CPU)
    images = pixels(2, 3, 160)
    with torch.no_grad():
        expected = network(normalised(images, network.pretrained_cfg["mean"], network.pretrained_cfg["std"]))
    assert expected.std(dim=0).max() > 0.01
    torch.testing.assert_close(teacher(normalised(images, COLOUR["mean"], COLOUR["std"])), expected, rtol=1e-3, atol=1e-4)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    teacher.train()  # as whoever trains what holds it would
    small = normalised(pixels(2, 3, 32), COLOUR["mean"], COLOUR["std"]).requires_grad_()
    assert teacher(small).shape == (2, 5)
    assert not teacher(small).requires_grad
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())  # running statistics too
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


def test_a_network_of_colours_sees_grey_pictures_as_grey_and_one_of_grey_has_its_own_file(tmp_path: Path) -> None:
    images = pixels(2, 1, 160)
    ours = normalised(images, GREY["mean"], GREY["std"])
    for chans in (3, 1):
        network = saved(tmp_path / "net.pth", num_classes=4, in_chans=chans)
        cfg = network.pretrained_cfg
        teacher = find_teacher(TeacherConfig(NAME, tmp_path / "net.pth"), outputs=4, in_chans=1).build(GREY, CPU)
        mean, std = (tuple(cfg[name]) if chans == 3 else (sum(cfg[name]) / 3,) for name in ("mean", "std"))
        with torch.no_grad():
            expected = network(normalised(images.expand(-1, chans, -1, -1), mean, std))
        torch.testing.assert_close(teacher(ours), expected, rtol=1e-3, atol=1e-4)


def test_a_network_of_a_fixed_size_is_built_for_another(tmp_path: Path) -> None:
    network = saved(tmp_path / "net.pth", name="test_vit", num_classes=4, img_size=32)
    config = TeacherConfig("test_vit", tmp_path / "net.pth", img_size=32)
    teacher = find_teacher(config, outputs=4, in_chans=3).build(COLOUR, CPU)
    images = pixels(2, 3, 32)
    with torch.no_grad():
        expected = network(normalised(images, network.pretrained_cfg["mean"], network.pretrained_cfg["std"]))
    torch.testing.assert_close(teacher(normalised(images, COLOUR["mean"], COLOUR["std"])), expected, rtol=1e-3, atol=1e-4)


def test_what_does_not_fit_is_one_line_with_the_remedy(tmp_path: Path) -> None:
    saved(tmp_path / "net.pth", num_classes=5)
    saved(tmp_path / "vit.pth", name="test_vit", num_classes=4)
    (tmp_path / "text.pth").write_text("no weights")
    torch.save({"state_dict": {"conv": 3}}, tmp_path / "odd.pth")
    cases = [
        (TeacherConfig(NAME, tmp_path / "net.pth"), r"net\.pth has 5 classes, the images have 4; give one trained on these"),
        (
            TeacherConfig("test_resnett"),
            r"--teacher\.name test_resnett: timm has no network of that name; near it are .*test_resnet",
        ),
        (TeacherConfig(NAME, tmp_path / "vit.pth"), r"vit\.pth holds no weights of timm's test_resnet"),
        (
            TeacherConfig("test_vit", tmp_path / "vit.pth", img_size=64),
            r"vit\.pth holds no weights of timm's test_vit: size mismatch",
        ),
        (TeacherConfig(NAME, tmp_path / "none.pth"), r"none\.pth does not exist"),
        (TeacherConfig(NAME, tmp_path / "text.pth"), r"text\.pth is no file of weights"),
        (TeacherConfig(NAME, tmp_path / "odd.pth"), r"odd\.pth holds more than weights"),
        (TeacherConfig(NAME), r"--teacher\.name test_resnet has 1000 classes, the images have 4"),
    ]
    for config, words in cases:
        with pytest.raises(UserError, match=words) as refused:
            find_teacher(config, outputs=4, in_chans=3)
        assert "\n" not in str(refused.value)
    grey = saved(tmp_path / "grey.pth", num_classes=4, in_chans=1)
    assert grey is not None
    with pytest.raises(UserError, match=r"grey\.pth sees images of 1 channels, these have 3"):
        find_teacher(TeacherConfig(NAME, tmp_path / "grey.pth"), outputs=4, in_chans=3)


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path(tmp_path / "ran").touch, ())

    torch.save({"state_dict": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(UserError, match="is no file of weights"):
        find_teacher(TeacherConfig(NAME, tmp_path / "evil.pth"), outputs=4, in_chans=3)
    assert not (tmp_path / "ran").exists()


def test_logits_that_are_kept_are_those_of_the_images_of_each_batch(tmp_path: Path) -> None:
    """By their number, in every epoch's order, whichever shards this process has, through float16."""
    rng = np.random.default_rng(0)
    images = ArrayImages(rng.integers(0, 256, (100, 1, 8, 8), dtype=np.uint8), np.arange(100) % 4)
    task = ImageClassification(DataConfig(img_size=8))

    def teacher(inputs: Tensor) -> Tensor:
        return inputs.flatten(1)[:, :4] * 2

    write_logits(tmp_path / "logits", logits_of(teacher, task.evaluation_inputs(images), CPU))
    shards = Shards.dealt(
        lambda shard: task.batches(images, batch_size=10, seed=3, rank=shard, world_size=2), of=2, rank=0, world_size=1
    )
    known = SoftLabels(read_logits(tmp_path / "logits"), shards.mine)
    for epoch in (0, 5):
        for place, batches in enumerate(shards.epoch(epoch)):
            for shard, (inputs, _) in batches.items():
                torch.testing.assert_close(known(shard, epoch, place), teacher(inputs), rtol=1e-3, atol=1e-3)
    with pytest.raises(UserError, match="leave it out"):
        SoftLabels(read_logits(tmp_path / "logits"), {0: object()})


def test_a_teacher_that_is_named_teaches_and_contradictions_are_named() -> None:
    named = replace(DIGITS_RECIPE, teacher=TeacherConfig(NAME))
    assert taught(named, ()).distill == DistillConfig("teacher")
    assert taught(named, ()).distill.share == 0.5
    assert taught(DIGITS_RECIPE, ()) == DIGITS_RECIPE.train
    largest = replace(DIGITS_RECIPE.train, distill=DistillConfig("largest"))
    with pytest.raises(SettingError, match=r"teacher\.name is test_resnet, but --train\.distill\.source largest"):
        taught(replace(named, train=largest), ("train.distill.source",))
    with pytest.raises(SettingError, match=r"train\.distill\.source is teacher, but --teacher\.name gives none"):
        taught(replace(DIGITS_RECIPE, train=replace(largest, distill=DistillConfig("teacher"))), ())
    with pytest.raises(SettingError, match=r"name is not given"):
        TeacherConfig(cache=True)
    mixed = replace(DIGITS_RECIPE, teacher=TeacherConfig(NAME, cache=True), train=replace(DIGITS_RECIPE.train, mixup=0.8))
    with pytest.raises(SettingError, match=r"teacher\.cache keeps logits of whole images"):
        check_cached(mixed)
    check_cached(replace(mixed, train=DIGITS_RECIPE.train))
