# mutant: makes the new upper directory with its own mode, owner and time
# loses: test_top
# diagnosis: the new upper directory should have

# %%exercise snapshot.take

from minicontainer.linux.files import exchange


def take(upper, layer, remember=None):
    """Freeze what was written to the directory `upper` as `layer`, and leave an empty `upper`."""
    os.mkdir(layer)
    if remember:
        remember()
    exchange(upper, layer)
