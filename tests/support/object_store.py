"""An S3 server of our own: the real protocol, on a free port of this machine."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote

import boto3
from moto.server import ThreadedMotoServer

BUCKET = "storage"
KEY, SECRET = "AKIAEXAMPLE", "not-a-real-secret"


@contextmanager
def object_store() -> Iterator[str]:
    """Run the server with one empty bucket; yield the query that a URI of it needs."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        client = boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
        )
        client.create_bucket(Bucket=BUCKET)
        client.close()
        # Delayed open makes a small file one request instead of three.
        yield f"endpoint_override={quote(endpoint, safe='')}&region=us-east-1&allow_delayed_open=1"
    finally:
        server.stop()


def s3_uri(query: str, prefix: str, bucket: str = BUCKET) -> str:
    """Name a prefix in the server whose query `object_store` gave."""
    return f"s3://{KEY}:{SECRET}@{bucket}/{prefix}?{query}"
