"""From a configuration to splits: which data set it is, where it lies, and who reads it."""

from __future__ import annotations

from raysearch.errors import UserError
from raysearch.store.names import shown
from raysearch.tasks.images import arrays, torchvision_sets
from raysearch.tasks.images.config import TORCHVISION, DataConfig
from raysearch.tasks.images.folders import TABLES, find_layout, imagenet_layout, list_images
from raysearch.tasks.images.known import recall, remember
from raysearch.tasks.images.listing import Found
from raysearch.tasks.images.manifests import find_listed
from raysearch.tasks.images.parts import divided
from raysearch.tasks.images.places import Place, is_file, is_folder, place_of
from raysearch.tasks.images.remote import Remote
from raysearch.tasks.images.shards import PACKED, TABLES_OF_IMAGES, TARS, find_in_shards, shard_files
from raysearch.tasks.images.tables import is_table_of_images
from raysearch.tasks.task import Splits


def load_splits(config: DataConfig, *, expected_digest: str | None = None) -> Splits:
    """The data set's splits: a function of ``config`` and the files, on every machine.

    Args:
        config: which images, and how many in each part.
        expected_digest: digest of the splits that the run started with. Other images than those are an error. Where this
            machine knows the division already, no file is opened: each is compared with what it was when it is read.

    Raises:
        UserError: for missing files, classes that are absent or too small, folders that are no data set, unreadable images
            and images that are not those of ``expected_digest``; names the file or folder.

    """
    if config.dataset == "digits":
        splits = arrays.digits(config)
    elif config.dataset == "fashion-mnist":
        splits = arrays.fashion_mnist(config)
    elif config.dataset.startswith(TORCHVISION) and torchvision_sets.is_held_in_memory(config):
        splits = torchvision_sets.in_memory(config)
    else:
        place = place_of_data(config)
        if expected_digest is not None and (known := recall(place, expected_digest, config)) is not None:
            return known
        splits = divided(find(place, config), config)
        remember(place, splits)
    if expected_digest not in (None, splits.digest):
        raise UserError(
            f"the {config.dataset} images{f' in {shown(config.source)}' if config.source else ''} are not those that this run "
            "started with, or not divided in the same way: restore the files and settings, or start a new run"
        )
    return splits


def place_of_data(config: DataConfig) -> Place:
    """Where the images of a configuration lie. Raises UserError where it names no place, or one that is not there."""
    if config.dataset.startswith(TORCHVISION):
        return torchvision_sets.folder_of_torchvision(config)
    if config.source is None:
        raise UserError(f"the data set {config.dataset!r} needs --data DIR, the folder of its images")
    place = place_of(config.source)
    if is_folder(place) or is_file(place):
        return place
    if isinstance(place, Remote):
        raise UserError(
            f"--data is {place}, where nothing is: see to the address, to AWS_ENDPOINT_URL and credentials in the environment"
        )
    raise UserError(f"--data is {shown(config.source)}, which is not a folder: give the folder of the images")


def find(place: Place, config: DataConfig) -> Found:
    """What is at ``place``: class folders, files that pictures stand in, or a table that lists images.

    Raises UserError, in one line with the remedy, for anything else.
    """
    if config.dataset.startswith(TORCHVISION):
        return torchvision_sets.find_in_torchvision(config)
    if config.dataset == "imagenet":
        return _of_folders(place, config)
    if is_folder(place):
        files = shard_files(place)
        return find_in_shards(place, files, config) if files else _of_folders(place, config)
    name = place.name.lower()
    if name.endswith((*TARS, *PACKED)) or (
        name.endswith(TABLES_OF_IMAGES) and (not name.endswith(TABLES) or is_table_of_images(place))
    ):
        return find_in_shards(place.parent, [place.name], config)
    if name.endswith(TABLES):
        return find_listed(place, config)
    raise UserError(
        f"--data is {shown(config.source or '')}, which is no data set: give a folder, a table that lists images "
        f"({', '.join(TABLES)}), or files that hold them ({', '.join((*TARS, *TABLES_OF_IMAGES))})"
    )


def _of_folders(root: Place, config: DataConfig) -> Found:
    """DIR/<class>/, or DIR/train/<class>/ with val/ or test/ for the test, or with both: val/ for search and finalists."""
    layout = imagenet_layout(root) if config.dataset == "imagenet" else find_layout(root)
    folders = {part: folder for part in ("train", "val", "test") if (folder := getattr(layout, part)) is not None}
    listings = {
        part: list_images(folder, layout.classes, as_in_0_1_0=config.rules == "0.1") for part, folder in folders.items()
    }
    return Found(layout.classes, listings, layout.notes)
