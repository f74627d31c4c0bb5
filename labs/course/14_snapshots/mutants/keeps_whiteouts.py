# mutant: removes files and directories, and does not know what a whiteout is
# loses: test_restored
# diagnosis: A whiteout

# %%exercise snapshot.restore
import shutil


def restore(layers, upper):
    """Throw away what was written to `upper`, so that it is `layers`, the topmost first, that are seen again."""
    for entry in list(os.scandir(upper)):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        elif entry.is_file(follow_symlinks=False):
            os.unlink(entry.path)
    about = os.stat(layers[0])
    os.chown(upper, about.st_uid, about.st_gid)
    shutil.copystat(layers[0], upper)
