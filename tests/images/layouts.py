"""OCI layouts written by hand, so that nothing of ours has a part in what ours is tested with."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
NAME = "org.opencontainers.image.ref.name"


def digest_of(raw: bytes) -> str:
    return f"sha256:{hashlib.sha256(raw).hexdigest()}"


class Layout:
    """A directory with an image in it, `tag`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "blobs/sha256").mkdir(parents=True)
        (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')

    def blob(self, raw: bytes, media_type: str, **fields: Any) -> dict[str, Any]:
        """Write a blob; its descriptor."""
        digest = digest_of(raw)
        (self.directory / "blobs/sha256" / digest.removeprefix("sha256:")).write_bytes(raw)
        return {"mediaType": media_type, "digest": digest, "size": len(raw), **fields}

    def document(self, value: Any, media_type: str, **fields: Any) -> dict[str, Any]:
        """The same with a document."""
        return self.blob(json.dumps(value).encode(), media_type, **fields)

    def image(self, tars: Sequence[bytes], compress: Callable[[bytes], bytes] = gzip.compress, suffix: str = "+gzip", **fields: Any) -> dict[str, Any]:  # fmt: skip
        """Write an image of these layers, from the bottom up; the descriptor of its manifest."""
        config = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": [digest_of(tar) for tar in tars]}}  # fmt: skip
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self.document(config, "application/vnd.oci.image.config.v1+json"),
            "layers": [self.blob(compress(tar), LAYER + suffix) for tar in tars],
        }
        return self.document(manifest, MANIFEST, **fields)

    def tag(self, *descriptors: dict[str, Any], tag: str = "tag") -> None:
        """Write index.json."""
        named = [{**one, "annotations": {NAME: tag}} for one in descriptors]
        (self.directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": named}))
