# mutant: moves the layer into the clone
# loses: test_cloned
# diagnosis: is one of the layers|is not there|An empty one

# %%exercise snapshot.clone

from minicontainer.steps.copying import merge


def clone(layers, upper, full=False, below=()):
    """Make the directory `upper` for another container that begins as what `layers`, the topmost first, show."""
    if full:
        merge(layers, upper, below)
        return
    os.rename(layers[0], upper)
    os.mkdir(layers[0])
