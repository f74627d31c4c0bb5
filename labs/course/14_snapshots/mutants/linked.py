# mutant: makes hard links: the layer and upper share their files
# loses: test_taken, test_top, test_killed, test_nothing_copied
# diagnosis: upper still has|nothing was taken|new directories|no merit then|it was copied

# %%exercise snapshot.take


def take(upper, layer, remember=None):
    """Freeze what was written to the directory `upper` as `layer`, and leave an empty `upper`."""
    os.system(f"cp -al {upper} {layer}")
    if remember:
        remember()
