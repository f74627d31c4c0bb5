# mutant: lets the container write to the topmost layer itself
# loses: test_stack
# diagnosis: was to be upperdir

# %%exercise overlay.stack
from minicontainer.linux import in_user_namespace


def stack(lowers, upper, work, target):
    """Show at `target` the directories `lowers` (the topmost first) below the writable directory `upper`."""
    options = ["lowerdir=" + ":".join(lowers[1:])]
    if upper:
        options += [f"upperdir={lowers[0]}", f"workdir={work}"]
    if in_user_namespace():
        options.append("userxattr")
    mount("overlay", target, "overlay", 0, ",".join(options))
