"""Networks of timm's by name or from a file, and what is done with them before the training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from math import isqrt
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, cast

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from raysearch.errors import UserError
from raysearch.spaces.elastic_vit.importance import measure, permuted
from raysearch.spaces.elastic_vit.network import ElasticNet
from raysearch.spaces.elastic_vit.sizes import ElasticSizes, NetConfig
from raysearch.spaces.elastic_vit.transformers_vit import from_transformers
from raysearch.spaces.pretrained import Loss, Prepared, PretrainedNetwork
from raysearch.spaces.stock import check_timm_name

PROBE_STEPS = 100
"""Of L-BFGS, in which the head is trained on what the body gives."""
PROBE_DECAY = 1e-3
"""Weight of the squared norm of the head in that."""


def read_pretrained(name: str, file: Path | None) -> PretrainedNetwork:
    """A vision transformer of timm's. Raises UserError, in one line with the remedy, for what cannot be read as one."""
    from raysearch.spaces.elastic_vit.timm_vit import canonical, check_parity, read_sizes

    model: Any = _by_hub(name) if file is None else _by_file(name, file)
    if not isinstance(getattr(model, "head", None), nn.Linear) and hasattr(model, "reset_classifier"):
        model.reset_classifier(1)  # the classes will be others: only the body counts
    try:
        sizes = read_sizes(model)
        height, width = sizes.img_size
        if height != width:
            raise UserError(
                f"it sees images of {height} x {width} pixels, and a search gives square ones; have timm "
                "save it for square images (model.set_input_size), or use raysearch.spaces.elastic_vit.from_timm"
            )
        network = ElasticNet(sizes, sizes.largest)
        network.load_state_dict(canonical(model.state_dict(), sizes))
        check_parity(model, network, sizes)
    except UserError as error:
        raise UserError(f"--from-timm {name}: {error}") from None
    net = {f.name: getattr(sizes, f.name) for f in fields(NetConfig) if f.name != "order"}
    return PretrainedNetwork(
        settings=sizes.settings(),
        weights={f"net.{part}": weight for part, weight in network.state_dict().items()},
        config={"net": net},
        preprocessing=_preprocessing(model, sizes),
        origin=_origin(name, model, file=file),
    )


def _origin(name: str, model: Any, *, file: Path | None) -> dict[str, str]:
    """What timm says of the weights; of those in a file it only knows those that the name usually has."""
    known: Mapping[str, Any] = model.pretrained_cfg
    names = ("architecture", "tag", "license", "hf_hub_id", "origin_url", "paper_name")
    found = {name: str(known[name]) for name in names if known.get(name)}
    if file is None:
        return found
    told = {"architecture": found.get("architecture", name), "file": file.name}
    if "license" in found:
        told["license"] = f"{found['license']}, as timm says of its own weights of this name; those of the file are not known"
    return told


def _preprocessing(model: Any, sizes: ElasticSizes) -> dict[str, Any]:
    from timm.data.config import resolve_data_config

    known = resolve_data_config({}, pretrained_cfg=model.pretrained_cfg)
    mean, std = (tuple(map(float, known[part])) for part in ("mean", "std"))
    if sizes.in_chans == 1 and len(mean) > 1:
        mean, std = ((sum(values) / len(values),) for values in (mean, std))
    found: dict[str, Any] = {"img_size": min(sizes.img_size), "in_chans": sizes.in_chans, "mean": mean, "std": std}
    interpolation = known["interpolation"] if known["interpolation"] in ("bicubic", "bilinear") else "bicubic"
    return {**found, "interpolation": interpolation, "crop_pct": float(known["crop_pct"])}


def _by_hub(name: str) -> nn.Module:
    """With timm's own weights. Raises UserError for a name that it has not, and where they cannot be had."""
    import timm

    check_timm_name(name, "--from-timm")
    try:
        return timm.create_model(name, pretrained=True).eval()
    except (OSError, RuntimeError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"--from-timm {name}: its weights cannot be had from the hub or its cache ({reason:.160}); put them on this "
            "machine and give the file with --from-timm-weights, or a folder that timm saved with --from-timm local-dir:FOLDER"
        ) from None


def _by_file(name: str, file: Path) -> nn.Module:
    """With the weights of a file: channels, classes and image size are its own. Raises UserError for another network's."""
    import timm

    from raysearch.spaces.elastic_vit.timm_vit import read_net

    if ":" in name:
        raise UserError(f"--from-timm {name} brings its own weights; leave out --from-timm-weights")
    check_timm_name(name, "--from-timm")
    weights = from_transformers(_weights(file))
    arguments: dict[str, Any] = {"num_classes": len(weights["head.weight"]) if "head.weight" in weights else 0}
    if (patches := weights.get("patch_embed.proj.weight")) is not None and patches.ndim == 4:
        arguments["in_chans"] = patches.shape[1]
    model: Any = timm.create_model(name, pretrained=False, **arguments)
    try:
        read_net(model)  # another kind of network is told so, not that the file is another's
    except UserError as error:
        raise UserError(f"--from-timm {name}: {error}") from None
    table, own = weights.get("pos_embed"), getattr(model, "pos_embed", None)
    if table is not None and own is not None and table.ndim == 3 and table.shape[1] != own.shape[1]:
        # Of another image size than the name's: the table says which, where its grid is square.
        prefix = 0 if getattr(model, "no_embed_class", False) else model.num_prefix_tokens
        side = isqrt(max(0, table.shape[1] - prefix))
        if side > 0 and side**2 == table.shape[1] - prefix:
            size = [side * patch for patch in model.patch_embed.patch_size]
            model = timm.create_model(name, pretrained=False, img_size=size, **arguments)
    expected: dict[str, Tensor] = model.state_dict()
    for part, weight in expected.items():
        given = weights.get(part)
        if given is None or given.shape != weight.shape:
            has = "it has none" if given is None else f"its own is {tuple(given.shape)}"
            raise UserError(
                f"--from-timm-weights {file} is of another network than timm's {name}: {part} would be "
                f"{tuple(weight.shape)}, {has}; give the name that it was saved from"
            )
    if odd := [part for part in weights if part not in expected]:
        raise UserError(
            f"--from-timm-weights {file} is of another network than timm's {name}, which has no {odd[0]}; give the name that "
            "it was saved from"
        )
    model.load_state_dict({part: weight.float() for part, weight in weights.items()})
    return model.eval()


def _weights(file: Path) -> dict[str, Tensor]:
    from timm.models import load_state_dict

    try:
        found: Any = load_state_dict(str(file), weights_only=True)
    except FileNotFoundError:
        raise UserError(f"--from-timm-weights {file} does not exist") from None
    except (OSError, RuntimeError, UnpicklingError, SafetensorError, EOFError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"--from-timm-weights {file} is no file of weights ({reason:.100}); save it with timm or PyTorch"
        ) from None
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in cast(dict[str, Any], found).values()):
        raise UserError(f"--from-timm-weights {file} holds more than weights, or none; give a state dict")
    return cast(dict[str, Tensor], found)


# --- before the training ----------------------------------------------------------------------------------------------


def prepare(
    settings: Mapping[str, Any], weights: Mapping[str, Tensor], batches: Sequence[tuple[Tensor, Tensor]], loss: Loss
) -> Prepared:
    """Train the head alone, measure what each part is worth, and put the parts in that order.

    On the device of the batches, in float32. The body's weights stay what they are, but for their order.
    """
    device = batches[0][0].device
    sizes = ElasticSizes(**{name: value for name, value in settings.items() if name != "drop_path_rate"})
    net = ElasticNet(sizes, sizes.largest).eval()
    net.load_state_dict({name.removeprefix("net."): weight for name, weight in weights.items()})
    net.to(device)
    before, after = _probe(net, batches, loss)
    importance = measure(net, batches, loss)
    ordered = permuted(net.state_dict(), importance)
    images = sum(len(inputs) for inputs, _ in batches)
    return Prepared(
        weights={f"net.{name}": weight.cpu() for name, weight in ordered.items()},
        settings={"net.order": importance.order},
        importance=importance.tensors(),
        words=(
            f"the new head was trained on {images:,} images (loss {before:.2f}, then {after:.2f}); heads, neurons, channels "
            "and blocks are in the order of what they are worth on these"
        ),
    )


def _probe(net: ElasticNet, batches: Sequence[tuple[Tensor, Tensor]], loss: Loss) -> tuple[float, float]:
    """Train the head on what the body gives for these images. Returns the loss before and after."""
    with torch.no_grad():
        seen = [(net.pooled(inputs), targets) for inputs, targets in batches]
    pooled, targets = torch.cat([x for x, _ in seen]), torch.cat([y for _, y in seen])
    head = net.head
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    optimizer = torch.optim.LBFGS([head.weight, head.bias], max_iter=PROBE_STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss(head(pooled, len(head.weight)), targets) + PROBE_DECAY * head.weight.square().sum()
        value.backward()
        return value

    before = float(closure().detach())
    optimizer.step(closure)  # pyright: ignore[reportArgumentType]  # torch says float, and takes a tensor
    net.zero_grad(set_to_none=True)
    return before, float(closure().detach())
