"""The same pictures kept in every way that ``--data`` takes: each function writes a folder of classes anew, in its way."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

Kept = Callable[[Path, Path], Path]
"""From a folder of class folders, or of parts with such, and an empty folder to what ``--data`` then is."""


def pictures(source: Path) -> Iterator[tuple[Path, str, str]]:
    """File, class and part of each picture, in the order of a folder's listing."""
    for path in sorted(source.rglob("*.*")):
        part = path.parent.parent.name if path.parent.parent != source else ""
        yield path, path.parent.name, part


def _rows(source: Path, folder: Path) -> list[dict[str, str]]:
    """With paths relative to ``folder``, where the pictures are copied, by number: no folder tells a class."""
    rows: list[dict[str, str]] = []
    for number, (path, label, part) in enumerate(pictures(source)):
        copy = folder / "photos" / f"{number:04}{path.suffix}"
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
        rows.append({"path": str(copy.relative_to(folder)), "label": label, **({"split": part} if part else {})})
    return rows


def as_csv(source: Path, folder: Path) -> Path:
    rows = _rows(source, folder)
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder / "labels.csv"


def as_parquet_of_paths(source: Path, folder: Path) -> Path:
    pq.write_table(pa.Table.from_pylist(_rows(source, folder)), folder / "labels.parquet")
    return folder / "labels.parquet"


def _table(source: Path, part: str) -> pa.Table:
    """As the Hugging Face hub has it: a struct of bytes and path, and a number whose name stands in the metadata."""
    names = sorted({label for _, label, _ in pictures(source)})
    rows = [(path, label) for path, label, of in pictures(source) if of == part]
    images = [{"bytes": path.read_bytes(), "path": path.name} for path, _ in rows]
    schema = pa.schema([("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])), ("label", pa.int64())])
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    return pa.table([images, [names.index(label) for _, label in rows]], schema=schema.with_metadata(metadata))


def _parts(source: Path) -> list[str]:
    return sorted({part for _, _, part in pictures(source)})


def as_parquet_shards(source: Path, folder: Path) -> Path:
    """Two files a part in a sub-folder, not compressed, so that a test finds the pictures in them."""
    (folder / "data").mkdir(parents=True)
    for part in _parts(source):
        table = _table(source, part)
        for shard, rows in enumerate((table.slice(0, len(table) // 2), table.slice(len(table) // 2))):
            name = f"{ {'val': 'validation'}.get(part, part) }-{shard:05}-of-00002.parquet" if part else f"{shard:05}.parquet"
            plain = {"compression": "none", "use_dictionary": False, "write_statistics": False}
            pq.write_table(rows, folder / "data" / name, row_group_size=5, **plain)
    return folder


def as_arrow_streams(source: Path, folder: Path) -> Path:
    """As ``datasets.save_to_disk`` has it: a folder for each part, and the streaming format."""
    for part in _parts(source):
        (folder / part).mkdir(parents=True)
        table = _table(source, part)
        with pa.ipc.new_stream(folder / part / "data-00000-of-00001.arrow", table.schema) as writer:
            writer.write_table(table, max_chunksize=7)
    return folder


def as_tars(source: Path, folder: Path) -> Path:
    """Two shards a part, numbers for classes, their names beside the shards."""
    names = sorted({label for _, label, _ in pictures(source)})
    folder.mkdir(parents=True)
    (folder / "classnames.txt").write_text("\n".join(names) + "\n")
    for part in _parts(source):
        rows = [(path, label) for path, label, of in pictures(source) if of == part]
        half = len(rows) // 2
        for shard, chosen in enumerate((rows[:half], rows[half:])):
            with tarfile.open(folder / f"set-{part or 'all'}-{shard:04}.tar", "w") as tar:
                for number, (path, label) in enumerate(chosen):
                    members = {path.suffix: path.read_bytes(), ".cls": f"{names.index(label)}\n".encode()}
                    for ending, content in members.items():
                        member = tarfile.TarInfo(f"sub/{number:04}{ending}")
                        member.size = len(content)
                        tar.addfile(member, io.BytesIO(content))
    return folder


KEPT: dict[str, Kept] = {
    "csv": as_csv,
    "parquet of paths": as_parquet_of_paths,
    "parquet": as_parquet_shards,
    "arrow": as_arrow_streams,
    "tar": as_tars,
}
