"""An S3 server on loopback, for tests of what lies in object storage."""

import logging
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@contextmanager
def s3_server() -> Iterator[str]:
    """Run a server on a free port; yield its endpoint. Child processes inherit the credentials."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    before = {name: os.environ.get(name) for name in CREDENTIALS}
    os.environ |= CREDENTIALS
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        yield "http://{}:{}".format(*server.get_host_and_port())
    finally:
        server.stop()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value


def new_bucket(endpoint: str) -> str:
    """Make a bucket and return the URI of a folder in it."""
    import boto3

    name = f"b-{uuid.uuid4().hex[:16]}"
    client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
    client.create_bucket(Bucket=name)
    return f"s3://{name}/folder?endpoint_override={endpoint}"


@pytest.fixture(scope="session")
def endpoint() -> Iterator[str]:
    """The address of a server; a conftest imports this."""
    with s3_server() as address:
        yield address
