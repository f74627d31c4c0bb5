# mutant: copies what was written, and leaves it in upper too
# loses: test_taken, test_nothing_copied, test_top, test_killed
# diagnosis: upper still has|it was copied|nothing was taken|no merit then

# %%exercise snapshot.take


def take(upper, layer, remember=None):
    """Freeze what was written to the directory `upper` as `layer`, and leave an empty `upper`."""
    os.system(f"cp -a {upper} {layer}")
    if remember:
        remember()
