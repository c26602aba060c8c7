"""Objects of S3 that are written only if nobody else has: what a lease is made of."""

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from dsgkd.errors import InputError

Retry = Callable[[str, Callable[[], Any]], Any]
"""Calls a function; after a fault of the network, calls it again. The text is for the message."""


@dataclass(frozen=True)
class Stamped:
    """An object with what tells its versions apart."""

    data: bytes
    tag: str
    age: float
    """Seconds since it was written, by the server's clock alone."""


class S3Objects:
    """The objects below a URI. boto3 does this, because Arrow has no conditional writes.

    Args:
        uri: a bucket's folder, as `Location` takes it.
        retry: calls a function again after a fault of the network.

    Raises:
        InputError: boto3 is not installed.
    """

    def __init__(self, uri: str, retry: Retry) -> None:
        parts = urlsplit(uri)
        given = {key: values[-1] for key, values in parse_qs(parts.query).items()}
        self._bucket, self._prefix = parts.hostname or "", unquote(parts.path).strip("/")
        endpoint = given.get("endpoint_override", "")
        if endpoint and "://" not in endpoint:
            endpoint = f"{given.get('scheme', 'https')}://{endpoint}"
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
        try:
            self._client = _client(endpoint, given.get("region", ""), user, password)
        except ImportError:
            raise InputError(
                f"s3://{self._bucket}",
                "locks in object storage need boto3",
                'pip install "dsgkd[s3]"',
            ) from None
        self._retry = retry

    def get(self, name: str) -> Stamped | None:
        """Return an object, None if there is none."""

        def get() -> Stamped:
            answer = self._ask("get_object", name)
            now = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
            age = (now - answer["LastModified"]).total_seconds()
            return Stamped(answer["Body"].read(), answer["ETag"], age)

        try:
            found: Stamped = self._retry(name, get)
        except FileNotFoundError:
            return None
        return found

    def put(self, name: str, data: bytes, tag: str | None = None) -> str | None:
        """Write an object if it is absent, or with `tag` if it still is that version.

        Returns:
            The tag of what was written; None if another version is there, or none at all.
        """
        condition = {"IfMatch": tag} if tag else {"IfNoneMatch": "*"}
        calls = 0

        def put() -> str | None:
            nonlocal calls
            calls += 1
            try:
                return str(self._ask("put_object", name, Body=data, **condition)["ETag"])
            except (_OtherVersion, FileNotFoundError):
                return None

        written: str | None = self._retry(name, put)
        if written is None and calls > 1:  # the call whose answer was lost may have written it
            found = self.get(name)
            return found.tag if found and found.data == data else None
        return written

    def _ask(self, call: str, name: str, **arguments: Any) -> dict[str, Any]:
        from botocore.exceptions import BotoCoreError, ClientError

        key = f"{self._prefix}/{name}".lstrip("/")
        try:
            answer: dict[str, Any] = getattr(self._client, call)(
                Bucket=self._bucket, Key=key, **arguments
            )
        except ClientError as error:
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            code = error.response["Error"].get("Code", "")
            if status == 412:
                raise _OtherVersion from None
            if code in ("NoSuchKey", "404"):
                raise FileNotFoundError(name) from None
            # 409: another conditional write to the same object was under way.
            kind = "" if status in (408, 409, 429) else f" (HTTP status {status})"
            raise OSError(f"{code}{kind}") from error
        except BotoCoreError as error:
            raise OSError(str(error)) from error
        return answer


class _OtherVersion(Exception):
    """The condition of a write did not hold."""


@functools.cache
def _client(endpoint: str, region: str, user: str, password: str) -> Any:
    import boto3
    from botocore.config import Config

    region = region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION", "")
    return boto3.client(
        "s3",
        endpoint_url=endpoint or None,
        region_name=region or "us-east-1",
        aws_access_key_id=user or None,
        aws_secret_access_key=password or None,
        config=Config(retries={"total_max_attempts": 1}, connect_timeout=10, read_timeout=30),
    )
