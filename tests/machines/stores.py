"""A store like S3 for tests."""

from __future__ import annotations

import urllib.request
from dataclasses import dataclass

import pytest

BUCKET = "parts"


@dataclass
class Store:
    """A store like S3; empty where moto is missing."""

    endpoint: str = ""

    def needed(self) -> str:
        """The address of the bucket; skips the test where there is none."""
        if not self.endpoint:
            pytest.skip("no s3fs and moto")
        return f"s3://{BUCKET}"

    def without_rights(self) -> None:
        """From now on, nobody has any rights."""
        self._reset_auth(b"0")

    def with_rights(self) -> None:
        """From now on, all have all rights, as at first."""
        self._reset_auth(b"inf")

    def _reset_auth(self, count: bytes) -> None:
        plain = {"Content-Type": "application/octet-stream"}
        request = urllib.request.Request(f"{self.endpoint}/moto-api/reset-auth", count, plain, method="POST")
        urllib.request.urlopen(request).close()
