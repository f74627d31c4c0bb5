# mutant: lets the clone write to its source's layer, by a link
# loses: test_cloned
# diagnosis: is one of the layers

# %%exercise snapshot.clone

from minicontainer.steps.copying import merge


def clone(layers, upper, full=False, below=()):
    """Make the directory `upper` for another container that begins as what `layers`, the topmost first, show."""
    if full:
        merge(layers, upper, below)
        return
    os.symlink(layers[0], upper)
