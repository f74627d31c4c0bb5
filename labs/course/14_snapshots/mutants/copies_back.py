# mutant: copies the snapshot back into upper: as long as it is much
# loses: test_restored
# diagnosis: they were copied

# %%exercise snapshot.restore
import shutil


def restore(layers, upper):
    """Throw away what was written to `upper`, so that it is `layers`, the topmost first, that are seen again."""
    shutil.rmtree(upper)
    os.system(f"cp -a {layers[0]} {upper}")
