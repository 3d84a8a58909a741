"""What evaluators cost in memory: the weights once and the images once on a node, whatever their number.

The evaluators of a real pool hold an AutoFormer-T supernet with random weights and a search split of random pixels. Their
proportional set size (PSS) counts a page that n processes share as one n-th for each.
"""

from __future__ import annotations

import importlib
import io
import multiprocessing
import os
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Literal

import numpy as np
import tyro
from PIL import Image
from rich.console import Console
from shared import console, print_heading, table

from raysearch.distributed.cluster import connected
from raysearch.distributed.evaluators import EvaluatorConfig, Scorer
from raysearch.distributed.files import NodeFile, local_path, serve, share
from raysearch.distributed.growth import share_of
from raysearch.distributed.scoring import ScoringService
from raysearch.distributed.search_run import SEARCH_SPLIT
from raysearch.distributed.supernet_scorer import SupernetScorer
from raysearch.recipes.autoformer import IMAGENET_TINY
from raysearch.search import Failure, Part, Result
from raysearch.space import Architecture
from raysearch.spaces.autoformer import FAMILY
from raysearch.tasks import Ends
from raysearch.tasks.images import IMAGES, ArrayImages, open_cache, write_cache
from raysearch.tasks.images.folders import list_images
from raysearch.tasks.images.parts import examined
from raysearch.training.supernets import SupernetFile, build_supernet

MIB = 2**20


@dataclass(frozen=True, slots=True)
class Settings:
    """Sizes of the measurements."""

    images: int = 2_000
    """Images of the search split, 224 pixels, three channels."""
    batch_size: int = 16
    """Images per forward pass of an evaluator."""
    scored: int = 32
    """Images that each evaluator passes through a subnet; it holds all of them, mapped and verified."""
    evaluators: tuple[int, ...] = (1, 4)
    """Numbers of evaluators on the node."""
    building: tuple[int, ...] = (500, 1_000, 2_000)
    """Numbers of JPEG files of which the cache is built."""
    parts: tuple[Literal["cache", "evaluators"], ...] = ("cache", "evaluators")
    """Which measurements."""
    quick: bool = False
    """A few images only: shows that the script works."""


# --- memory of a process ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of one process, by kind of page."""

    pss: int
    """Everything, shared pages divided by those who share them."""
    anonymous: int
    """Its own: heap, stacks, tensors."""
    weights: int
    """PSS of the mapped supernet."""
    images: int
    """PSS of the mapped image cache."""
    libraries: int
    """PSS of all other mapped files."""


def memory_of(pid: int, *, weights: str, images: str) -> Memory:
    """What /proc/PID/smaps says."""
    sizes = dict.fromkeys(("pss", "anonymous", "weights", "images", "libraries"), 0)
    name = ""
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        fields = line.split()
        if not fields[0].endswith(":"):
            name = fields[5] if len(fields) > 5 else ""
        elif fields[0] == "Pss:":
            size = int(fields[1]) * 1024
            sizes["pss"] += size
            if name.endswith(weights):
                sizes["weights"] += size
            elif name.endswith(images):
                sizes["images"] += size
            elif name.startswith("/"):
                sizes["libraries"] += size
        elif fields[0] == "Anonymous:":
            sizes["anonymous"] += int(fields[1]) * 1024
    return Memory(**sizes)


def rss_anon() -> int:
    """Anonymous bytes of this process that are in memory now."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))


# --- evaluators -------------------------------------------------------------------------------------------------------


class BareScorer:
    """An evaluator's process after its imports, without supernet and images."""

    def __init__(self, arrived: Path, evaluators: int) -> None:
        self.arrived, self.evaluators = arrived, evaluators
        importlib.import_module(SupernetScorer.__module__)

    def score(self, arch: Architecture, images: NodeFile, part: Part | None = None) -> Result | Failure:
        """Nothing, once all evaluators are there."""
        _wait_for_all(self.arrived, self.evaluators)
        return Result(0.0, 1, 0, 0)


class HoldingScorer:
    """The real scorer with all that it holds: the mapped supernet, all images mapped and verified, and the largest subnet.

    It passes a few images through the subnet only, which takes less time and no less memory.
    """

    def __init__(self, make_scorer: Callable[[], SupernetScorer], few: NodeFile, arrived: Path, evaluators: int) -> None:
        self.scorer, self.few, self.arrived, self.evaluators = make_scorer(), few, arrived, evaluators

    def score(self, arch: Architecture, images: NodeFile, part: Part | None = None) -> Result | Failure:
        """A real score, of the largest subnet whatever is asked, once all evaluators are there."""
        largest = IMAGENET_TINY.config.space.build().largest()
        self.images = open_cache(local_path(images))
        result = self.scorer.score(largest, self.few)
        self.subnet = self.scorer.subnets.extract(largest)  # as while it scores
        _wait_for_all(self.arrived, self.evaluators)
        return result


def _wait_for_all(arrived: Path, evaluators: int) -> None:
    """Hold this process's candidate until each of the others has one: then none has two."""
    (arrived / str(os.getpid())).touch()
    while len(list(arrived.iterdir())) < evaluators:
        time.sleep(0.05)


def evaluators_memory(
    make_scorer: Callable[[Path, int], Callable[[], Scorer]], folder: Path, images: NodeFile, *, evaluators: int
) -> list[Memory]:
    """Memory of so many evaluators, each of which has scored one candidate."""
    space = IMAGENET_TINY.config.space.build()
    name = uuid.uuid4().hex[:8]
    arrived = folder / name
    arrived.mkdir()
    config = EvaluatorConfig(cpus=_cpus() / max(4, evaluators), max_evaluators=evaluators)
    scorer = make_scorer(arrived, evaluators)
    with ScoringService(scorer, config, name=f"pool-{name}", journal=folder / f"{name}.jsonl", weights="w") as service:
        service.add_images(SEARCH_SPLIT, images)
        list(service.score(SEARCH_SPLIT, [space.sample(Random(i)) for i in range(evaluators)]))
        pids = [int(path.name) for path in arrived.iterdir()]
        return [memory_of(pid, weights="supernet.safetensors", images="search.arrow") for pid in pids]


def evaluators_table(folder: Path, settings: Settings, screen: Console) -> None:
    """PSS of 1 to n evaluators, with and without supernet and images."""
    recipe = IMAGENET_TINY
    geometry = recipe.config.geometry(Ends(recipe.task.input_shape, 1000))
    weights = folder / "supernet.safetensors"
    supernet = build_supernet(FAMILY, geometry.settings(), weight_init="trunc_normal", pos_embed_std=0.02, seed=0)
    SupernetFile(FAMILY, supernet.settings(), dict(supernet.state_dict())).write(weights)
    subnet = 4 * supernet.cost(recipe.config.space.build().largest()).params
    for name, count in (("search", settings.images), ("few", settings.scored)):
        pixels = np.random.default_rng(0).integers(0, 256, (count, 3, 224, 224), dtype=np.uint8)
        write_cache(ArrayImages(pixels, np.zeros(count, np.int64)), folder / f"{name}.arrow", recipe.task.dataset)
        del pixels
    server = serve()
    files = {name: share(folder / name, server=server) for name in ("supernet.safetensors", "search.arrow", "few.arrow")}
    config = EvaluatorConfig(batch_size=settings.batch_size, cpus=_cpus() / 4)
    real = partial(SupernetScorer, files["supernet.safetensors"], family=FAMILY, task=recipe.task, config=config)
    kinds: dict[str, Callable[[Path, int], Callable[[], Scorer]]] = {
        "bare": lambda arrived, n: partial(BareScorer, arrived, n),
        "at work": lambda arrived, n: partial(HoldingScorer, real, files["few.arrow"], arrived, n),
    }
    rows: list[list[str]] = []
    totals: dict[str, dict[int, int]] = {}
    for kind, make_scorer in kinds.items():
        for n in settings.evaluators:
            memories = evaluators_memory(make_scorer, folder, files["search.arrow"], evaluators=n)
            sums = {field.name: sum(getattr(m, field.name) for m in memories) for field in fields(Memory)}
            totals.setdefault(kind, {})[n] = sums["pss"]
            rows.append([f"{kind}, {n}", *(f"{size / MIB:,.0f}" for size in sums.values())])
    sizes = {name: f"{(folder / name).stat().st_size / MIB:,.0f} MiB" for name in ("supernet.safetensors", "search.arrow")}
    caption = f"sums over the evaluators of a node; supernet {sizes['supernet.safetensors']}, images {sizes['search.arrow']}"
    screen.print(
        table(
            "Evaluators on a node, PSS in MiB",
            ["evaluators", "all", "anonymous", "supernet", "images", "libraries"],
            rows,
            caption=caption,
        )
    )
    fewest, most = min(settings.evaluators), max(settings.evaluators)
    if fewest < most:
        further = {kind: (pss[most] - pss[fewest]) / (most - fewest) for kind, pss in totals.items()}
        allowed = further["bare"] + subnet
        rows = [
            ["own base (bare)", f"{further['bare'] / MIB:,.0f}"],
            ["one subnet, the largest", f"{subnet / MIB:,.0f}"],
            ["goal: base and subnet", f"{allowed / MIB:,.0f}"],
            ["measured", f"{further['at work'] / MIB:,.0f}"],
            ["measured / goal", f"{further['at work'] / allowed:.2f}"],
        ]
        screen.print(table("A further evaluator, PSS", ["", "MiB"], rows))


# --- the cache --------------------------------------------------------------------------------------------------------


def cache_table(folder: Path, settings: Settings, screen: Console) -> None:
    """Peak of anonymous memory while the cache is built, for more and more files."""
    most = max(settings.building)
    rng = np.random.default_rng(0)
    contents: list[bytes] = []
    for _ in range(32):
        coarse = Image.fromarray(rng.integers(0, 256, (32, 40, 3), dtype=np.uint8))
        content = io.BytesIO()
        coarse.resize((500, 400), Image.Resampling.BICUBIC).save(content, "JPEG", quality=90)
        contents.append(content.getvalue())
    root = folder / "jpeg" / "all"
    root.mkdir(parents=True)
    for i in range(most):
        (root / f"{i:06}.jpg").write_bytes(contents[i % len(contents)])
    rows: list[list[str]] = []
    peaks: dict[int, int] = {}
    spawn = multiprocessing.get_context("spawn")
    for count in settings.building:
        with spawn.Pool(1) as pool:  # a process of its own, whose memory nothing else has grown
            before, peaks[count] = pool.apply(build_cache, (root.parent, folder / "built.arrow", count))
        (folder / "built.arrow").unlink()
        pixels = count * 3 * 224 * 224
        rows.append([f"{count:,}", f"{pixels / MIB:,.0f}", f"{before / MIB:,.0f}", f"{peaks[count] / MIB:,.0f}"])
    fewest = min(settings.building)
    caption = "anonymous memory of the process that builds it, sampled every 5 ms"
    if fewest < most:
        each = (peaks[most] - peaks[fewest]) / (most - fewest)
        at_50000 = peaks[most] + max(0.0, each) * (50_000 - most)
        caption += (
            f"; growth {each / 1024:.1f} KiB for each image (its pixels: 147 KiB). Inferred from that, not measured: "
            f"{at_50000 / MIB:,.0f} MiB for 50,000 images, goal 1,024"
        )
    columns = ["images of 500 x 400 pixels", "decoded, MiB", "before, MiB", "peak, MiB"]
    screen.print(table("Building the image cache, 224 pixels", columns, rows, caption=caption))


def build_cache(root: Path, path: Path, count: int) -> tuple[int, int]:
    """Build the cache of ``count`` files; anonymous bytes before and at most."""
    listing = list_images(root, ["all"], as_in_0_1_0=False)
    images = examined({"train": listing}, IMAGES).sets["train"].subset(range(count))
    before = peak = rss_anon()
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.005):
            peak = max(peak, rss_anon())

    watcher = threading.Thread(target=watch)
    watcher.start()
    write_cache(images, path, replace(IMAGENET_TINY.task.dataset, dataset="images"))
    done.set()
    watcher.join()
    return before, peak


def _cpus() -> float:
    return share_of("evaluation").cpus


def main(settings: Settings) -> None:
    """Measure memory of evaluators and of building their images."""
    if settings.quick:
        settings = replace(settings, images=64, scored=4, batch_size=4, evaluators=(1, 2), building=(64,))
    screen = console()
    print_heading(screen, "Memory: what a further evaluator costs, and building the images")
    with tempfile.TemporaryDirectory(prefix="raysearch-benchmark-") as folder:
        if "cache" in settings.parts:
            cache_table(Path(folder), settings, screen)
        if "evaluators" in settings.parts:
            with connected("local"):
                evaluators_table(Path(folder), settings, screen)


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
