# mutant: does not say userxattr: opaque directories are not believed
# loses: test_stack
# diagnosis: only with the option "userxattr"

# %%exercise overlay.stack


def stack(lowers, upper, work, target):
    """Show at `target` the directories `lowers` (the topmost first) below the writable directory `upper`."""
    options = ["lowerdir=" + ":".join(lowers)]
    if upper:
        options += [f"upperdir={upper}", f"workdir={work}"]
    mount("overlay", target, "overlay", 0, ",".join(options))
