"""The clouds' notices, from a server that answers as their documentation says theirs do."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from timbre_ray.cluster import spot


class Metadata(BaseHTTPRequestHandler):
    """AWS's IMDSv2 and GCP's; ``asked_before`` questions are answered before the notice is given."""

    asked_before = 0

    def do_PUT(self) -> None:
        asks = self.headers.get("X-aws-ec2-metadata-token-ttl-seconds")
        self._answer(200 if asks and self.path == "/latest/api/token" else 400, "the-token")

    def do_GET(self) -> None:
        type(self).asked_before -= 1
        told = self.asked_before < 0
        if self.path == "/latest/meta-data/spot/instance-action":
            allowed = self.headers.get("X-aws-ec2-metadata-token") == "the-token"
            self._answer((200 if told else 404) if allowed else 401, '{"action": "terminate", "time": "2026-11-26T08:22:00Z"}')
        elif self.path == "/computeMetadata/v1/instance/preempted" and self.headers.get("Metadata-Flavor") == "Google":
            self._answer(200, "TRUE" if told else "FALSE")
        else:
            self._answer(403, "")

    def _answer(self, code: int, text: str) -> None:
        self.send_response(code)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    server = HTTPServer(("127.0.0.1", 0), Metadata)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name in ("AWS", "GCP"):
        monkeypatch.setattr(spot, name, f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(spot, "ASKED_EVERY_S", 0.01)
    yield
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(("notice", "seconds"), [(spot.aws_notice, 110), (spot.gcp_notice, 25)])
def test_the_node_is_drained_once_the_notice_is_given(cloud: None, notice: spot.Notice, seconds: float) -> None:
    Metadata.asked_before = 4
    drained: list[float] = []
    assert spot.watch((notice,), drained.append)
    assert drained == [seconds] and Metadata.asked_before < 0


def test_a_machine_of_no_cloud_is_not_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS", "GCP"):
        monkeypatch.setattr(spot, name, "http://127.0.0.1:9")  # nothing listens there
    assert not spot.watch((spot.aws_notice, spot.gcp_notice), lambda seconds: pytest.fail("drained"))
