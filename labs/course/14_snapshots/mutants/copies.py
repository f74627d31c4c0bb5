# mutant: copies what was written, and then empties upper: as long as it is much
# loses: test_nothing_copied, test_killed
# diagnosis: it was copied

# %%exercise snapshot.take
import shutil


def take(upper, layer, remember=None):
    """Freeze what was written to the directory `upper` as `layer`, and leave an empty `upper`."""
    os.system(f"cp -a {upper} {layer}")
    if remember:
        remember()
    about = os.stat(upper)
    shutil.rmtree(upper)
    os.mkdir(upper)
    os.chown(upper, about.st_uid, about.st_gid)
    shutil.copystat(layer, upper)
