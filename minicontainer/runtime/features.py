"""What this runtime can do, for whoever drives it: the specification's features.md."""

from __future__ import annotations

from minicontainer.linux import Namespace
from minicontainer.linux.capabilities import NAMES
from minicontainer.linux.cgroups import hierarchies
from minicontainer.runtime.mount_options import KNOWN
from minicontainer.runtime.spec import OCI_VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def features() -> dict[str, Any]:
    """The features document. What depends on the host is said of this host."""
    import minicontainer
    from minicontainer.steps import seccomp as filters

    versions = {tree.version for tree in hierarchies()}
    return {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": OCI_VERSION,
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": list(KNOWN),
        "linux": {
            "namespaces": [kind.name.lower() for kind in Namespace if kind.supported],
            "capabilities": [f"CAP_{name}" for name in NAMES],
            "cgroup": {
                "v1": 1 in versions,
                "v2": 2 in versions,
                "systemd": False,
                "systemdUser": False,
                "rdma": True,
            },
            "seccomp": {
                "enabled": True,
                "actions": list(filters.ACTIONS),
                "operators": list(filters.OPERATORS),
                "archs": list(filters.ARCHITECTURES),
                "knownFlags": list(filters.FLAGS),
                "supportedFlags": list(filters.FLAGS),
            },
            "apparmor": {"enabled": True},
            "selinux": {"enabled": True},
            "intelRdt": {"enabled": False},
            "mountExtensions": {"idmap": {"enabled": True}},
        },
        "annotations": {"org.opencontainers.runtime-spec.version": minicontainer.__version__},
    }
