# mutant: merges the layers, and forgets what they hide in the image
# loses: test_full_clone
# diagnosis: what it hides stays hidden

# %%exercise snapshot.clone
import shutil

from minicontainer.steps.copying import merge


def clone(layers, upper, full=False, below=()):
    """Make the directory `upper` for another container that begins as what `layers`, the topmost first, show."""
    if full:
        merge(layers, upper)
        return
    about = os.stat(layers[0])
    os.mkdir(upper)
    os.chown(upper, about.st_uid, about.st_gid)
    shutil.copystat(layers[0], upper)
