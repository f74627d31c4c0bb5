# mutant: writes it down when all is done: killed before that, the files are nobody's
# loses: test_killed
# diagnosis: First write it down, then move

# %%exercise snapshot.take
import shutil

from minicontainer.linux.files import exchange


def take(upper, layer, remember=None):
    """Freeze what was written to the directory `upper` as `layer`, and leave an empty `upper`."""
    about = os.stat(upper)
    os.mkdir(layer)
    os.chown(layer, about.st_uid, about.st_gid)
    shutil.copystat(upper, layer)
    exchange(upper, layer)
    if remember:
        remember()
