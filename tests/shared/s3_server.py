"""An S3 server on this machine."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from pyarrow import fs

SECRET = "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY"


@contextmanager
def s3_server() -> Generator[str]:
    """Its address, during the ``with`` block."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def to_reach(endpoint: str) -> dict[str, str]:
    """What the environment has to say for it."""
    keys = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": SECRET}
    return {"AWS_ENDPOINT_URL": endpoint, **keys, "AWS_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true"}


def system(endpoint: str) -> fs.S3FileSystem:
    """Its files."""
    return fs.S3FileSystem(endpoint_override=endpoint, region="us-east-1", allow_bucket_creation=True)
