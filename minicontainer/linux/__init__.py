"""The kernel's calls as Python functions, named and argued as in the manual pages. No policy, no state.

Reachable from here (capabilities and cgroups have to be asked for): ``from minicontainer.linux import unshare``.
"""

from minicontainer.linux.mount import *  # noqa: F403
from minicontainer.linux.namespaces import *  # noqa: F403
from minicontainer.linux.network import *  # noqa: F403
from minicontainer.linux.process import *  # noqa: F403
from minicontainer.linux.uts import *  # noqa: F403
