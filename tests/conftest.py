"""Fixtures over the embedded miniature. One BLAS thread: two processes of tests share two cores."""

from __future__ import annotations

import os
import socket
import urllib.request
import uuid
from collections.abc import Callable

import pytest
import torch

from timbre_ray.models.backbone import Backbone, load_backbone
from timbre_ray.specs import BackboneSpec

torch.set_num_threads(1)
os.environ.setdefault("RAY_ADDRESS", "local")  # a cluster that `ray start` left on this machine is none of the tests'


@pytest.fixture(scope="session")
def backbone() -> Backbone:
    return load_backbone(BackboneSpec())


@pytest.fixture(scope="session")
def s3_server():
    """An S3 server of this process on loopback; its state survives stop and start."""
    from moto.server import ThreadedMotoServer

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]  # fixed, so that it comes back where it was
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def s3_credentials(s3_server) -> dict[str, str]:
    """What a process must have in its environment to be let in."""
    host, port = s3_server.get_host_and_port()
    return {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "AKIAOFTHETESTS",
        "AWS_SECRET_ACCESS_KEY": "hush/secret-key-of-the-tests", "AWS_DEFAULT_REGION": "us-east-1",
    }  # fmt: skip


@pytest.fixture(scope="session")
def new_bucket(s3_credentials) -> Callable[[], str]:
    """Makes an empty bucket and returns its URL."""

    def make() -> str:
        name = f"bucket-{uuid.uuid4().hex[:12]}"
        urllib.request.urlopen(urllib.request.Request(f"{s3_credentials['AWS_ENDPOINT_URL']}/{name}", method="PUT")).close()
        return f"s3://{name}"

    return make


@pytest.fixture
def bucket(s3_credentials, new_bucket, monkeypatch) -> str:
    """URL of an empty bucket; this process and its children have its credentials in their environment."""
    for name, value in s3_credentials.items():
        monkeypatch.setenv(name, value)
    return new_bucket()
