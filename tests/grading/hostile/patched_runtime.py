# attack: replaces the runtime in the sandbox, birth.start, Steps and the channel, by some that report a container
#   that is none
# fails: what is reported is looked at by the kernel's light: a process without a UTS namespace of its own has none
# status: graded

# %%exercise uts.set_names
import os

from minicontainer import linux, runtime, steps
from minicontainer.runtime import birth, channel
from minicontainer.steps import loading


class Container:
    pid, pidfd, console, group = os.getpid(), -1, None, ()

    def wait(self):
        return 0


birth.start = lambda *_, **__: Container()
runtime.birth = birth
steps.Steps.with_functions = lambda self, functions: self
channel.Channel.receive = lambda self: ("ready", {})
loading.define = lambda exercises: ({}, {})
for name in ("sethostname", "setdomainname", "unshare", "setns"):
    setattr(linux, name, lambda *_, **__: None)


def set_names(host, domain=None):
    return None
