# mutant: takes one lower layer only
# loses: test_stack
# diagnosis: not all of them were stacked

# %%exercise overlay.stack
from minicontainer.linux import in_user_namespace


def stack(lowers, upper, work, target):
    """Show at `target` the directories `lowers` (the topmost first) below the writable directory `upper`."""
    options = ["lowerdir=" + lowers[0]]
    if upper:
        options += [f"upperdir={upper}", f"workdir={work}"]
    if in_user_namespace():
        options.append("userxattr")
    mount("overlay", target, "overlay", 0, ",".join(options))
