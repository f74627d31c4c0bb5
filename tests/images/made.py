"""Images made by hand, in archives as docker, older dockers, and the specification have them."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from typing import Any

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
INDEX = "application/vnd.oci.image.index.v1+json"
NAME = "org.opencontainers.image.ref.name"


def digest_of(raw: bytes) -> str:
    return f"sha256:{hashlib.sha256(raw).hexdigest()}"


def tar_of(files: Mapping[str, bytes | str]) -> bytes:
    """An archive: text is where a symbolic link leads to; a name that ends in a slash is a directory."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name.rstrip("/"))
            member.mode = 0o755
            if isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
            elif name.endswith("/"):
                member.type = tarfile.DIRTYPE
            else:
                member.size = len(content)
            tar.addfile(member, io.BytesIO(content) if isinstance(content, bytes) else None)
    return buffer.getvalue()


class Made:
    """One image."""

    def __init__(
        self,
        layers: Sequence[Mapping[str, bytes | str]],
        settings: Mapping[str, Any] | None = None,
        *,
        architecture: str = "amd64",
        compress: bool = False,
        history: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        self.tars = [tar_of(layer) for layer in layers]
        self.layers = [gzip.compress(tar, mtime=0) if compress else tar for tar in self.tars]
        self.config = json.dumps(
            {
                "architecture": architecture,
                "os": "linux",
                "config": dict(settings or {}),
                "rootfs": {"type": "layers", "diff_ids": [digest_of(tar) for tar in self.tars]},
                **({"history": list(history)} if history else {}),
            }
        ).encode()
        media_type = LAYER + ("+gzip" if compress else "")
        self.manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": descriptor(self.config, CONFIG),
                "layers": [descriptor(layer, media_type) for layer in self.layers],
            }
        ).encode()

    @property
    def id(self) -> str:
        return digest_of(self.config)

    def blobs(self) -> dict[str, bytes]:
        """By the names that they have in a layout."""
        return {f"blobs/sha256/{digest_of(raw)[7:]}": raw for raw in (*self.layers, self.config, self.manifest)}

    def layout(self, name: str | None = None, **files: bytes) -> bytes:
        """As an archive of an OCI layout."""
        one = descriptor(self.manifest, MANIFEST, **({"annotations": {NAME: name}} if name else {}))
        index = json.dumps({"schemaVersion": 2, "manifests": [one]}).encode()
        return tar_of({"oci-layout": b"{}", "index.json": index, **self.blobs(), **files})

    def dockers(self, *tags: str, twice: bool = False) -> bytes:
        """As docker wrote it before version 25; `twice`: a layer that was there before is a link to that one."""
        files, names = dict[str, bytes | str](), []
        for number, layer in enumerate(self.layers):
            name = f"{number:064x}/layer.tar"
            same = next((other for other, content in files.items() if content == layer), None)
            files[name] = f"../{same}" if same and twice else layer
            files[f"{number:064x}/VERSION"], files[f"{number:064x}/json"] = b"1.0", b"{}"
            names.append(name)
        config = f"{self.id[7:]}.json"
        entry = {"Config": config, "RepoTags": list(tags) or None, "Layers": names}
        return tar_of(
            {**files, config: self.config, "manifest.json": json.dumps([entry]).encode(), "repositories": b"{}"}
        )


def descriptor(raw: bytes, media_type: str, **fields: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_of(raw), "size": len(raw), **fields}
