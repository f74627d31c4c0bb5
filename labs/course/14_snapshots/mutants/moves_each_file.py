# mutant: moves what is in upper, name by name: killed in between, half is here and half there
# loses: test_taken, test_nothing_copied, test_top
# diagnosis: is not what upper was|each by itself|should have modified

# %%exercise snapshot.take
import shutil


def take(upper, layer, remember=None):
    """Freeze what was written to the directory `upper` as `layer`, and leave an empty `upper`."""
    about = os.stat(upper)
    os.mkdir(layer)
    os.chown(layer, about.st_uid, about.st_gid)
    shutil.copystat(upper, layer)
    if remember:
        remember()
    for name in os.listdir(upper):
        os.rename(f"{upper}/{name}", f"{layer}/{name}")
