# mutant: copies the topmost layer into every clone
# loses: test_cloned
# diagnosis: An empty one will do

# %%exercise snapshot.clone

from minicontainer.steps.copying import merge


def clone(layers, upper, full=False, below=()):
    """Make the directory `upper` for another container that begins as what `layers`, the topmost first, show."""
    if full:
        merge(layers, upper, below)
        return
    os.system(f"cp -a {layers[0]} {upper}")
