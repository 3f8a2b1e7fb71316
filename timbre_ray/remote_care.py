"""store_care.py for a store behind a URL: is every object what it was, how much lies where, and what may go."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator

from timbre_ray.object_storage import Entry, ObjectStorage
from timbre_ray.remote_tier import CorruptArtifactError, RemoteTier
from timbre_ray.store_care import DAY_S, Checked, Garbage, Usage


def checked_tier(url: str) -> RemoteTier:
    """Raises FileNotFoundError where there is no store: a wrong URL must not look like a store without a fault."""
    storage = ObjectStorage(url)
    if next(storage.entries("artifacts"), None) is None and next(storage.entries("payload"), None) is None:
        raise FileNotFoundError(f"{url}: no store there (nothing below artifacts/); name it, as run.storage of the sweep does")
    return RemoteTier(storage)


def verify(tier: RemoteTier) -> Iterator[Checked]:
    """Every artifact, by stage and key; all of it is downloaded and nothing of it kept."""
    for stage, key in tier.places():
        try:
            problems = tuple(tier.problems(tier.manifest(stage, key)))
        except CorruptArtifactError as error:
            problems = (str(error),)
        yield Checked(stage=stage, key=key, problems=problems)


def usage(tier: RemoteTier) -> list[Usage]:
    """By stage, the largest first; garbage among it."""
    sizes: dict[str, int] = defaultdict(int)
    for kind in ("artifacts", "payload", "checkpoints"):
        for entry in tier.storage.entries(kind):
            sizes[entry.name.split("/")[1]] += entry.num_bytes
    counts: dict[str, int] = defaultdict(int)
    for stage, _ in tier.places():
        counts[stage] += 1
    rows = [Usage(stage=stage, num_artifacts=counts[stage], num_bytes=num) for stage, num in sizes.items()]
    return sorted(rows, key=lambda row: -row.num_bytes)


def collect_garbage(tier: RemoteTier, *, days: float, remove: bool) -> list[Garbage]:
    """Payloads that no artifact.json names and that nobody wrote to for so many days: their writer is gone. Checkpoints of stages
    that are published, and those that nobody wrote to for as long. What an artifact.json that cannot be read may name stays.

    Listed before the artifacts are: what is published in between is not taken for garbage.
    """
    payloads, checkpoints = _by_folder(tier, "payload", 4), _by_folder(tier, "checkpoints", 3)
    manifests = list(tier.manifests())
    unreadable = set(tier.places()) - {(m["stage"], m["key"]) for m in manifests}
    named = {f"payload/{m['stage']}/{m['key']}/{m['payload']}" for m in manifests}
    published = {f"checkpoints/{m['stage']}/{m['key']}" for m in manifests}
    found = []
    for folder, entries in sorted({**payloads, **checkpoints}.items()):
        age_days = (time.time() - max(entry.modified for entry in entries)) / DAY_S
        if folder in published:
            reason = "its stage is published"
        elif folder in named or tuple(folder.split("/")[1:3]) in unreadable or age_days < days:
            continue
        else:
            reason = "never published" if folder in payloads else f"untouched for {age_days:.0f} days"
        num_bytes = sum(entry.num_bytes for entry in entries)
        found.append(Garbage(folder=f"{tier.storage.url}/{folder}", reason=reason, num_bytes=num_bytes))
        if remove:
            tier.storage.delete(*(entry.name for entry in entries))
    return found


def _by_folder(tier: RemoteTier, kind: str, depth: int) -> dict[str, list[Entry]]:
    """The objects of a kind by the first parts of their names, ``depth`` of them."""
    found: dict[str, list[Entry]] = defaultdict(list)
    for entry in tier.storage.entries(kind):
        found["/".join(entry.name.split("/")[:depth])].append(entry)
    return found
