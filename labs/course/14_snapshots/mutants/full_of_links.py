# mutant: makes hard links of the layers' files: a change in one is a change in both
# loses: test_full_clone
# diagnosis: links, not copies

# %%exercise snapshot.clone
import shutil


def clone(layers, upper, full=False, below=()):
    """Make the directory `upper` for another container that begins as what `layers`, the topmost first, show."""
    if full:
        for layer in reversed(layers):
            os.system(f"cp -alT --remove-destination {layer} {upper}")
        return
    about = os.stat(layers[0])
    os.mkdir(upper)
    os.chown(upper, about.st_uid, about.st_gid)
    shutil.copystat(layers[0], upper)
