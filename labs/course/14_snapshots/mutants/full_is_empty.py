# mutant: thinks that a full clone is like any other
# loses: test_full_clone
# diagnosis: would have nothing but the image

# %%exercise snapshot.clone
import shutil


def clone(layers, upper, full=False, below=()):
    """Make the directory `upper` for another container that begins as what `layers`, the topmost first, show."""
    about = os.stat(layers[0])
    os.mkdir(upper)
    os.chown(upper, about.st_uid, about.st_gid)
    shutil.copystat(layers[0], upper)
