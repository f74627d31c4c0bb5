# mutant: makes the clone's directory with its own mode and owner
# loses: test_cloned
# diagnosis: the clone's upper directory should have

# %%exercise snapshot.clone

from minicontainer.steps.copying import merge


def clone(layers, upper, full=False, below=()):
    """Make the directory `upper` for another container that begins as what `layers`, the topmost first, show."""
    if full:
        merge(layers, upper, below)
        return
    os.mkdir(upper)
