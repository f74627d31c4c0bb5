# mutant: removes what the layer has too, and keeps whatever is newer
# loses: test_restored
# diagnosis: from after the snapshot

# %%exercise snapshot.restore
import shutil


def restore(layers, upper):
    """Throw away what was written to `upper`, so that it is `layers`, the topmost first, that are seen again."""
    for name in os.listdir(layers[0]):
        path = f"{upper}/{name}"
        if os.path.isdir(path):
            shutil.rmtree(path)
        elif os.path.lexists(path):
            os.unlink(path)
    about = os.stat(layers[0])
    os.chown(upper, about.st_uid, about.st_gid)
    shutil.copystat(layers[0], upper)
