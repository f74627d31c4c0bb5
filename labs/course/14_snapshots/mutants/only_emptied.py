# mutant: empties upper, and leaves it as the container had changed it
# loses: test_restored
# diagnosis: upper should have mode

# %%exercise snapshot.restore
import shutil


def restore(layers, upper):
    """Throw away what was written to `upper`, so that it is `layers`, the topmost first, that are seen again."""
    for entry in list(os.scandir(upper)):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        else:
            os.unlink(entry.path)
