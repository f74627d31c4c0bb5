# mutant: merges the layers in the wrong order
# loses: test_full_clone
# diagnosis: the topmost one is seen

# %%exercise snapshot.clone
import shutil

from minicontainer.steps.copying import merge


def clone(layers, upper, full=False, below=()):
    """Make the directory `upper` for another container that begins as what `layers`, the topmost first, show."""
    if full:
        merge(layers[::-1], upper, below)
        return
    about = os.stat(layers[0])
    os.mkdir(upper)
    os.chown(upper, about.st_uid, about.st_gid)
    shutil.copystat(layers[0], upper)
