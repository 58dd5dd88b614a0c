"""A Ray cluster of four workers on this machine, and a store like S3 on loopback; tests without them are skipped."""

from __future__ import annotations

import gc
import os
import warnings
from collections.abc import Iterator

import pytest
from machines.stores import BUCKET, Store


@pytest.fixture(scope="session")
def cluster(store: Store) -> Iterator[None]:
    """Ray with four processors, whatever there are; its workers know the store."""
    ray = pytest.importorskip("ray")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # of processes that older versions do not wait for
        # one of its own, whatever else runs on this machine
        ray.init("local", num_cpus=4, object_store_memory=100 << 20, include_dashboard=False, log_to_driver=False)
        gc.collect()
        yield
        ray.shutdown()
        gc.collect()


@pytest.fixture(scope="session")
def store() -> Iterator[Store]:
    """A moto server on loopback, and variables that lead to it."""
    try:
        import boto3
        import s3fs  # noqa: F401
        from moto.server import ThreadedMotoServer
    except ImportError:
        yield Store()
        return
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    endpoint = "http://{}:{}".format(*server.get_host_and_port())
    variables = {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": endpoint,
    }
    before = dict(os.environ)
    os.environ.update(variables)
    boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket=BUCKET)
    try:
        yield Store(endpoint)
    finally:
        server.stop()
        for name in variables:
            os.environ.pop(name)
        os.environ.update({name: before[name] for name in variables if name in before})
