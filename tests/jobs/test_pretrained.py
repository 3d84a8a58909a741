"""Searches that begin with a pretrained network of timm's: what is read, what follows, and what is refused in a line."""

import json
import re
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from timm_layouts import SIZES, model_of, pretrained_folder
from torch import Tensor
from torch.nn.functional import cross_entropy

from raysearch.errors import UserError
from raysearch.jobs.plan import plan_search
from raysearch.parsing.search import parse_search
from raysearch.spaces.family import pretrained_family

FAMILY = pretrained_family()
assert FAMILY.pretrained is not None
read, prepare = FAMILY.pretrained.read, FAMILY.pretrained.prepare


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pretrained_folder(tmp_path_factory.mktemp("pretrained"))


def planned(*arguments: object) -> Any:
    return plan_search(parse_search(["digits", *map(str, arguments)]))


def test_sizes_and_preprocessing_are_the_networks(folder: Path):
    plan = planned("--from-timm", f"local-dir:{folder}")
    sizes, data = plan.geometry.settings, plan.recipe.task.dataset
    assert plan.recipe.family.name == FAMILY.name
    assert [sizes[name] for name in ("embed_dim", "depth", "num_heads", "patch_size")] == [24, 3, 3, [4, 4]]
    assert (sizes["num_classes"], sizes["img_size"]) == (10, [8, 8])
    assert (data.mean, data.std, data.interpolation, data.crop_pct) == ((0.25,), (0.5,), "bilinear", 0.9)
    # Trained as what is trained already, from its weights; the head alone is new.
    assert plan.recipe.train.layer_decay < 1
    assert plan.recipe.train.largest_first > 0
    theirs = model_of(**SIZES, num_classes=5).state_dict()
    assert torch.equal(plan.start.weights["net.blocks.1.mlp.fc1.weight"], theirs["blocks.1.mlp.fc1.weight"])
    assert plan.start.weights["net.head.weight"].shape == (10, 24)


def test_what_is_given_stays(folder: Path):
    plan = planned("--from-timm", f"local-dir:{folder}", "--dataset.img-size", 16, "--train.lr", "1e-3", "--space.uniform")
    assert plan.geometry.settings["img_size"] == [16, 16]
    assert plan.start.weights["net.pos_embed"].shape == (1, 17, 24), "the position table is resampled"
    assert plan.recipe.train.lr == 1e-3
    assert len({*plan.geometry.space.largest().num_heads}) == 1
    assert plan.geometry.space.size() < 100


def test_a_file_of_weights_brings_its_own_classes_and_image_size(tmp_path: Path):
    model = model_of("test_vit", img_size=64, num_classes=3)
    for name in ("weights.safetensors", "weights.pth"):
        path = tmp_path / name
        if name.endswith("pth"):
            torch.save(model.state_dict(), path)
        else:
            save_file(dict(model.state_dict()), path)
        found = read("test_vit", path)
        assert found.settings["img_size"] == [64, 64]
        network = FAMILY.supernet(**found.settings).eval()
        network.load_state_dict(dict(found.weights))
        images = torch.randn(2, 3, 64, 64)
        with torch.no_grad():
            torch.testing.assert_close(network.net(images), model(images), rtol=1e-5, atol=1e-5)


def as_transformers(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state dict that ``ViTForImageClassification`` of transformers would save: its names, made here."""
    made: dict[str, Tensor] = {}
    for name, weight in weights.items():
        if (found := re.fullmatch(r"blocks\.(\d+)\.attn\.qkv\.(\w+)", name)) is not None:
            for which, part in zip(("query", "key", "value"), weight.chunk(3), strict=True):
                made[f"vit.encoder.layer.{found[1]}.attention.attention.{which}.{found[2]}"] = part.clone()
            continue
        for new, old in (
            ("vit.embeddings.cls_token", "cls_token"),
            ("vit.embeddings.position_embeddings", "pos_embed"),
            (r"vit.embeddings.patch_embeddings.projection.\1", r"patch_embed\.proj\.(\w+)"),
            (r"vit.encoder.layer.\1.layernorm_before.\2", r"blocks\.(\d+)\.norm1\.(\w+)"),
            (r"vit.encoder.layer.\1.layernorm_after.\2", r"blocks\.(\d+)\.norm2\.(\w+)"),
            (r"vit.encoder.layer.\1.attention.output.dense.\2", r"blocks\.(\d+)\.attn\.proj\.(\w+)"),
            (r"vit.encoder.layer.\1.intermediate.dense.\2", r"blocks\.(\d+)\.mlp\.fc1\.(\w+)"),
            (r"vit.encoder.layer.\1.output.dense.\2", r"blocks\.(\d+)\.mlp\.fc2\.(\w+)"),
            (r"vit.layernorm.\1", r"norm\.(\w+)"),
            (r"classifier.\1", r"head\.(\w+)"),
        ):
            if re.fullmatch(old, name):
                made[re.sub(old, new, name)] = weight.clone()
    return made


def test_weights_that_transformers_saved(tmp_path: Path):
    weights = dict(model_of("test_vit").state_dict())
    save_file(weights, tmp_path / "timm.safetensors")
    save_file(as_transformers(weights), tmp_path / "transformers.safetensors")
    assert not {*as_transformers(weights)} & {*weights}
    one, other = (read("test_vit", tmp_path / f"{library}.safetensors") for library in ("timm", "transformers"))
    assert one.weights.keys() == other.weights.keys()
    assert all(torch.equal(weight, other.weights[name]) for name, weight in one.weights.items())


def test_preparation_trains_the_head_and_orders_the_rest(folder: Path):
    plan = planned("--from-timm", f"local-dir:{folder}")
    drawn = torch.Generator().manual_seed(0)
    images, labels = torch.randn(64, 1, 8, 8, generator=drawn), torch.arange(64) % 10
    made = prepare(plan.settings, plan.start.weights, [(images[:40], labels[:40]), (images[40:], labels[40:])], cross_entropy)
    assert sorted(made.settings["net.order"]) == [0, 1, 2]
    networks: list[Any] = []
    for settings, weights in (
        (plan.settings, plan.start.weights),
        ({**plan.settings, "order": list(made.settings["net.order"])}, made.weights),
    ):
        networks.append(FAMILY.supernet(**settings).eval())
        networks[-1].load_state_dict(dict(weights))
    largest = plan.geometry.space.largest()
    with torch.no_grad():
        before, after = (network.net.pooled(images, largest) for network in networks)
        torch.testing.assert_close(after.sort(dim=1).values, before.sort(dim=1).values, rtol=1e-4, atol=1e-5)
        assert not torch.equal(after, before)
        assert cross_entropy(networks[1](images, largest), labels) < 2.0 < cross_entropy(networks[0](images, largest), labels)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--from-timm", "vit_tinny_patch16_224"], "timm has no network of that name; near it are .*vit_tiny_patch16_224"),
        (["--from-timm", "test_resnet"], "weights cannot be had|ResNet is no VisionTransformer"),
        (["--from-timm", "test_vit", "--from-timm-weights", "missing.pth"], "missing.pth does not exist"),
        (
            ["--baselines", "test_vit", "resnet81"],
            "--baselines resnet81: timm has no network of that name; near it are",
        ),
        (["--from-timm-weights", "some.pth"], "--from-timm-weights needs --from-timm NAME"),
        (["--from-timm", "test_vit", "--family", "autoformer"], "do not begin as timm's; leave out --family"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], line: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=line) as raised:
        planned(*arguments)
    assert "\n" not in str(raised.value)


def test_no_network_for_the_hub_says_where_to_put_the_file(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="give the file with --from-timm-weights, or a folder"):
        read("test_vit", None)


def test_images_of_one_class_are_refused(tmp_path: Path, folder: Path):
    for i in range(40):
        place = tmp_path / "data" / "cat" / f"{i}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (8, 8), dtype=np.uint8)).save(place)
    with pytest.raises(UserError, match="class") as raised:
        plan_search(parse_search(["images", "--data", str(tmp_path / "data"), "--from-timm", f"local-dir:{folder}"]))
    assert "\n" not in str(raised.value)


def test_the_terms_of_the_weights_are_told(tmp_path: Path, folder: Path):
    assert "license" not in read(f"local-dir:{folder}", None).origin
    config = json.loads((folder / "config.json").read_text())
    own = pretrained_folder(tmp_path)
    config["pretrained_cfg"] |= {"license": "cc-by-nc-4.0", "tag": "lab_in1k"}
    (own / "config.json").write_text(json.dumps(config))
    assert read(f"local-dir:{own}", None).origin.items() >= {("license", "cc-by-nc-4.0"), ("tag", "lab_in1k")}
    # timm knows the terms of its own weights of a name, not those of a file.
    save_file(dict(model_of("test_vit").state_dict()), tmp_path / "mine.safetensors")
    told = read("test_vit", tmp_path / "mine.safetensors").origin
    assert told["file"] == "mine.safetensors"
    assert "those of the file are not known" in told["license"]


def test_files_of_other_networks_are_refused_with_the_first_weight(tmp_path: Path, folder: Path):
    save_file(dict(model_of(**SIZES).state_dict()), tmp_path / "other.safetensors")
    with pytest.raises(UserError, match=r"than timm's test_vit: cls_token would be \(1, 1, 64\), its own is \(1, 1, 24\)"):
        read("test_vit", tmp_path / "other.safetensors")
    save_file(dict(model_of("test_resnet").state_dict()), tmp_path / "resnet.safetensors")
    with pytest.raises(UserError, match=r"than timm's test_vit: cls_token would be .*, it has none"):
        read("test_vit", tmp_path / "resnet.safetensors")
    with pytest.raises(UserError, match="ResNet is no VisionTransformer"):
        read("test_resnet", tmp_path / "resnet.safetensors")
    wide = pretrained_folder(tmp_path, img_size=(8, 12))
    with pytest.raises(UserError, match=r"it sees images of 8 x 12 pixels, and a search gives square ones; have timm save it"):
        planned("--from-timm", f"local-dir:{wide}")
    with pytest.raises(UserError, match="smaller than a patch of 4 x 4"):
        planned("--from-timm", f"local-dir:{folder}", "--dataset.img-size", 2)
    with pytest.raises(UserError, match=r"no whole number of patches of 4 x 4; take 8 x 8"):
        planned("--from-timm", f"local-dir:{folder}", "--dataset.img-size", 9)
