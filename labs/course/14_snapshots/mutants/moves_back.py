# mutant: moves the layer back into its place: there is no second time
# loses: test_restored, test_snapshot_stays
# diagnosis: is not there|they were copied

# %%exercise snapshot.restore
import shutil


def restore(layers, upper):
    """Throw away what was written to `upper`, so that it is `layers`, the topmost first, that are seen again."""
    shutil.rmtree(upper)
    os.rename(layers[0], upper)
