# mutant: gives the new upper directory mode and time, and forgets whose it is
# loses: test_top
# diagnosis: should have owner

# %%exercise snapshot.take
import shutil

from minicontainer.linux.files import exchange


def take(upper, layer, remember=None):
    """Freeze what was written to the directory `upper` as `layer`, and leave an empty `upper`."""
    os.mkdir(layer)
    shutil.copystat(upper, layer)
    if remember:
        remember()
    exchange(upper, layer)
