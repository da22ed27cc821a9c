"""An object store with a latency: what a reader needs of the S3 protocol, over files in memory.

    python -m benchmarks.s3_server FOLDER SECONDS

serves the folder as the bucket `bench`, lets each request wait, and prints its port. It answers
`GET /` with the number of requests so far. (moto takes longer for a request than a real store.)
"""

from __future__ import annotations

import asyncio
import bisect
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from email.utils import formatdate
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote
from xml.sax.saxutils import escape

import requests
from aiohttp import web

BUCKET = "bench"
PAGE = 1000  # keys in one answer, as S3 has it


class Object(NamedTuple):
    """One key's content and the whole second at which it was written."""

    data: bytes
    mtime: int


class Store:
    """Answers requests after `latency` seconds each."""

    def __init__(self, folder: Path, latency: float) -> None:
        self._latency = latency
        self._requests = 0
        self._objects = {
            path.relative_to(folder).as_posix(): Object(
                path.read_bytes(), int(path.stat().st_mtime)
            )
            for path in folder.rglob("*")
            if path.is_file()
        }
        self._keys = sorted(self._objects)

    async def answer(self, request: web.BaseRequest) -> web.Response:
        """Answer one request."""
        if request.path == "/":
            return web.Response(text=str(self._requests))
        self._requests += 1
        await asyncio.sleep(self._latency)
        _, bucket, *rest = request.path.split("/", 2)
        if bucket != BUCKET or request.method not in ("GET", "HEAD"):
            return _error(403, "AccessDenied")
        key = rest[0] if rest else ""
        if key:
            return self._object(request, key)
        return self._listing(request) if request.method == "GET" else web.Response()

    def _object(self, request: web.BaseRequest, key: str) -> web.Response:
        found = self._objects.get(key)
        if found is None:
            return _error(404, "NoSuchKey")
        part = request.http_range
        data = found.data[part]
        if data == b"" and found.data:
            return _error(416, "InvalidRange")
        headers = {
            "ETag": f'"{hash(found.data) & (1 << 64) - 1:016x}"',
            "Last-Modified": formatdate(found.mtime, usegmt=True),
            "Accept-Ranges": "bytes",
            "Content-Type": "binary/octet-stream",
        }
        if request.method == "HEAD":
            headers["Content-Length"] = str(len(data))
            return web.Response(headers=headers)
        status = 200
        if part.start is not None:
            status = 206
            end = part.start + len(data) - 1
            headers["Content-Range"] = f"bytes {part.start}-{end}/{len(found.data)}"
        return web.Response(status=status, body=data, headers=headers)

    def _listing(self, request: web.BaseRequest) -> web.Response:
        query = request.query
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        limit = min(int(query.get("max-keys", PAGE)), PAGE)
        after = query.get("continuation-token") or query.get("start-after", "")
        entries: list[str] = []
        last = after
        at = max(bisect.bisect_left(self._keys, prefix), bisect.bisect_right(self._keys, after))
        while at < len(self._keys) and self._keys[at].startswith(prefix) and len(entries) < limit:
            key = last = self._keys[at]
            folder, divided, _ = key[len(prefix) :].partition(delimiter or "\0")
            if divided:
                last = prefix + folder + delimiter
                entries.append(f"<CommonPrefixes><Prefix>{escape(last)}</Prefix></CommonPrefixes>")
                last += "\U0010ffff"  # after all keys below the folder
                at = bisect.bisect_left(self._keys, last)
            else:
                entries.append(self._contents(key))
                at += 1
        more = at < len(self._keys) and self._keys[at].startswith(prefix)
        token = f"<NextContinuationToken>{escape(last)}</NextContinuationToken>" if more else ""
        return _xml(
            f"<ListBucketResult><Name>{BUCKET}</Name><Prefix>{escape(prefix)}</Prefix>"
            f"<KeyCount>{len(entries)}</KeyCount><MaxKeys>{limit}</MaxKeys>"
            f"<IsTruncated>{str(more).lower()}</IsTruncated>{token}{''.join(entries)}"
            "</ListBucketResult>"
        )

    def _contents(self, key: str) -> str:
        found = self._objects[key]
        written = datetime.fromtimestamp(found.mtime, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
        return (
            f"<Contents><Key>{escape(key)}</Key><LastModified>{written}.000Z</LastModified>"
            f"<Size>{len(found.data)}</Size><StorageClass>STANDARD</StorageClass></Contents>"
        )


def _xml(body: str, status: int = 200) -> web.Response:
    head = '<?xml version="1.0" encoding="UTF-8"?>'
    return web.Response(status=status, text=head + body, content_type="application/xml")


def _error(status: int, code: str) -> web.Response:
    return _xml(f"<Error><Code>{code}</Code><Message>{code}</Message></Error>", status)


class Running:
    """A server in a process of its own, which does not compete for our interpreter."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/"
        self.uri = (
            f"s3://AKIAEXAMPLE:not-a-real-secret@{BUCKET}/storage?scheme=http&region=us-east-1"
            f"&endpoint_override={quote(f'127.0.0.1:{port}', safe='')}&allow_delayed_open=1"
        )

    def requests(self) -> int:
        """Return how many requests there were so far."""
        return int(requests.get(self._url, timeout=10).text)


@contextmanager
def serving(folder: Path, latency: float) -> Iterator[Running]:
    """Serve a folder, below which the storage is `storage`, until the end of the block."""
    command = [sys.executable, "-m", "benchmarks.s3_server", str(folder), str(latency)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            yield Running(int(process.stdout.readline()))
        finally:
            process.kill()


async def _serve(folder: Path, latency: float) -> None:
    runner = web.ServerRunner(web.Server(Store(folder, latency).answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1]), float(sys.argv[2])))
