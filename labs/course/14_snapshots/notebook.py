# %% [markdown]
# # Lab 14: a moment kept
#
# **The question:** a container has written a gigabyte. How can its state be kept, and a second container begin from it,
# in a millisecond?
#
# **You will learn** what a snapshot is made of when there are layers, why it costs the same whatever is in it, in which
# order one has to act so that a power cut loses nothing, and what may be shared between clones.
#
# **You need** lab 13, [rename(2)](https://man7.org/linux/man-pages/man2/rename.2.html) with renameat2; about an hour.
#
# Run the cells from the top, one after the other: Shift-Enter. Where there is a `%%predict`, write what you expect
# behind the colon and run it, *before* the experiment below it.

# %%
# %load_ext labs.notebook

# %% [markdown]
# ## What there is to keep
#
# After lab 13 we know where it is: everything that a container has written lies in its upper directory, and all below
# is read-only. To keep its state is to keep that one directory. The obvious way is a copy.

# %%
# %%predict cost
# The upper directory has 100, 1000, 5000 files of 4 KiB. How long does it take to copy it (cp -a), and how long to give
# it another name and put an empty directory in its place?
# My prediction:

# %%
# %%isolated
import os
import shutil

from labs.notebook import stacks
from labs.notebook.layers import filled, milliseconds, workshop


def renamed(upper, layer):
    os.rename(upper, layer)
    os.mkdir(upper)


place = workshop()
counts, copied, moved = [100, 1000, 5000], [], []
for count in counts:
    upper = filled(f"{place}/{count}", count)
    copied.append(milliseconds(shutil.copytree, upper, f"{upper}.copy"))
    moved.append(milliseconds(renamed, upper, f"{upper}.layer"))
    shutil.rmtree(f"{upper}.copy")
stacks.costs(counts, {"copied": copied, "renamed": moved})
for count, one, other in zip(counts, copied, moved, strict=True):
    print(f"{count:5} files: copied in {one:8.2f} ms, renamed in {other:5.3f} ms")

# %%
# %look_back cost

# %% [markdown]
# A directory is a name for an inode. Giving it another name touches the two directories in which the names stand, and
# nothing below. The files do not move; they have not even been looked at. Their inode numbers tell: what was copied has
# new ones.
#
# And the container sees the same as before, if what was its upper layer now lies directly below the new, empty one:

# %%
# %%isolated
import os

from labs.notebook import stacks
from labs.notebook.layers import WHITEOUT, layer, overlay, workshop

place = workshop()
image = layer(f"{place}/image", {"sh": "image", "motd": "image", "old": "image"})
upper = layer(f"{place}/upper", {"motd": "mine", "old": WHITEOUT, "data": "mine"})
shown = overlay([image], upper, f"{place}/before")
stacks.layers({"upper": upper, "image": image}, shown)
os.system(f"umount {shown}")
os.rename(upper, f"{place}/layer")
os.mkdir(upper)
shown = overlay([f"{place}/layer", image], upper, f"{place}/after")
stacks.layers({"upper": upper, "snapshot": f"{place}/layer", "image": image}, shown)

# %% [markdown]
# ## "/" is a directory too

# %%
# %%predict top
# An overlay's root directory: whose mode and owner does it show, the image's or the upper directory's? What does a user
# in the container meet whose upper directory was made anew, with mode 0700?
# My prediction:

# %%
# %%isolated
import os

from labs.notebook.layers import layer, overlay, workshop

place = workshop()
image = layer(f"{place}/image", {"motd": "image"})
os.chmod(image, 0o755)
upper = layer(f"{place}/upper", {})
for mode in (0o755, 0o700):
    os.chmod(upper, mode)
    shown = overlay([image], upper, f"{place}/seen-{mode:o}")
    print(f"image 0755, upper {mode:04o}: the container's / has", oct(os.stat(shown).st_mode & 0o7777))

# %%
# %look_back top

# %% [markdown]
# ## Killed in between
#
# Three things have to happen: an empty directory is made, the two names change, and somebody writes down that the
# container lies on one more layer (in `config.json`, say). The power may go off between any two of them.

# %%
# %%predict order
# Name exchanged first, or written down first: what does the container see when it is started after a power cut between
# the two? In which of the orders has it all of its files in every case?
# My prediction:

# %%
# %%isolated
import os

from labs.notebook.layers import layer, overlay, walk, workshop
from minicontainer.linux.files import exchange

place = workshop()
image = layer(f"{place}/image", {"sh": "image"})
for number, order in enumerate((["make", "exchange", "write down"], ["make", "write down", "exchange"])):
    for done in range(4):
        home = layer(f"{place}/{number}{done}", {"upper/data": "mine"})
        written = [image]  # the layers that config.json says
        for act in order[:done]:
            if act == "make":
                os.mkdir(f"{home}/layer")
            elif act == "exchange":
                exchange(f"{home}/upper", f"{home}/layer")
            else:
                written = [f"{home}/layer", image]
        shown = overlay(written, f"{home}/upper", f"{home}/seen")
        names = sorted(path for path, _, _ in walk(shown))
        print(f"{' → '.join(order):32} power cut after {done}: it sees", *names, "" if "data" in names else "  ← LOST")

# %%
# %look_back order

# %% [markdown]
# An empty layer changes nothing, and one that has taken the upper one's place changes nothing either. So it is written
# down *while the layer is empty*, and the exchange is the last act. It must be one act: `renameat2` with
# `RENAME_EXCHANGE` (Linux 3.15) has no moment in which one of the names is missing; two calls of rename(2) do.
#
# ## Exercise 1: `take`
#
# ```
# take(upper: str, layer: str, remember: Callable[[], object] | None = None) -> None
# ```
#
# Freeze what was written to `upper` as `layer`, a name that is free on the same file system, and leave an empty `upper`
# that is like the old one: owner, mode, times. `remember()` writes down that there is one more layer; call it, if it is
# given, at the right moment. No overlay uses `upper` at that time: the container is stopped.
#
# `exchange(one, other)` of `minicontainer.linux.files` is renameat2. `shutil.copystat` copies mode, times and
# attributes, and no owner.

# %%
# %%exercise snapshot.take
import shutil

from minicontainer.linux.files import exchange


def take(upper, layer, remember=None):
    """Freeze what was written to the directory `upper` as `layer`, and leave an empty `upper`."""
    # SOLUTION BEGIN
    about = os.stat(upper)
    os.mkdir(layer)
    os.chown(layer, about.st_uid, about.st_gid)
    shutil.copystat(upper, layer)
    if remember:
        remember()
    exchange(upper, layer)
    # SOLUTION END


# %%
# %%isolated
from labs.notebook import stacks
from labs.notebook.layers import filled, layer, listing, milliseconds, overlay, workshop

place = workshop()
image = layer(f"{place}/image", {"sh": "image", "motd": "image"})
upper = layer(f"{place}/upper", {"motd": "mine", "data": "mine"})
listing(upper, "before")
take(upper, f"{place}/layer")
listing(f"{place}/layer", "the layer: look at the inodes")
stacks.layers({"upper": upper, "snapshot": f"{place}/layer", "image": image}, overlay([f"{place}/layer", image], upper))
for count in (100, 3000):
    uppers = [filled(f"{place}/{count}-{number}", count, size=1) for number in range(5)]
    times = [milliseconds(take, one, f"{one}.layer") for one in uppers]
    print(f"{count:5} files: {min(times):.3f} ms, the shortest of {len(times)}")

# %% [markdown]
# ## Exercise 2: `restore`
#
# ```
# restore(layers: Sequence[str], upper: str) -> None
# ```
#
# Throw away what was written to `upper`, so that `layers`, the topmost first, are seen again as they were. What is to be
# brought back? Look at the picture above: nothing. Something is to be taken away, and whiteouts and opaque marks are
# part of it. `upper` shall be like `layers[0]` then. The layers are not touched: one may want to go back once more.

# %%
# %%exercise snapshot.restore
import shutil

from minicontainer.linux.files import exchange


def restore(layers, upper):
    """Throw away what was written to `upper`, so that it is `layers`, the topmost first, that are seen again."""
    # SOLUTION BEGIN
    fresh, about = f"{upper}.new", os.stat(layers[0])
    if os.path.exists(fresh):
        shutil.rmtree(fresh)
    os.mkdir(fresh)
    os.chown(fresh, about.st_uid, about.st_gid)
    shutil.copystat(layers[0], fresh)
    exchange(fresh, upper)
    shutil.rmtree(fresh)
    # SOLUTION END


# %%
# %%isolated
from labs.notebook import stacks
from labs.notebook.layers import WHITEOUT, layer, overlay, workshop

place = workshop()
image = layer(f"{place}/image", {"sh": "image", "motd": "image"})
kept = layer(f"{place}/layer", {"motd": "mine", "data": "mine"})
upper = layer(f"{place}/upper", {"motd": "broken", "data": WHITEOUT, "junk": "junk"})
stacks.layers({"upper": upper, "snapshot": kept, "image": image}, overlay([kept, image], upper, f"{place}/before"))
restore([kept, image], upper)
stacks.layers({"upper": upper, "snapshot": kept, "image": image}, overlay([kept, image], upper, f"{place}/after"))

# %% [markdown]
# (The first overlay was still mounted when its upper directory went away. overlayfs.rst calls what comes of that
# undefined; here nobody looks at it any more. An engine stops the container, or freezes it and gives it a new root.)
#
# ## Clones

# %%
# %%predict clones
# Two containers lie on the same snapshot, each with an upper directory of its own. One of them changes "data", which is
# in the snapshot. Does the other one see it? And if the source of the two is started again and changes it?
# My prediction:

# %%
# %%isolated
from labs.notebook import stacks
from labs.notebook.layers import layer, overlay, workshop

place = workshop()
image = layer(f"{place}/image", {"sh": "image"})
kept = layer(f"{place}/layer", {"data": "kept"})
seen = {name: overlay([kept, image], layer(f"{place}/{name}", {})) for name in ("source", "one", "other")}
open(f"{seen['one']}/data", "w").write("of one")
open(f"{seen['source']}/data", "w").write("of source")
for name, shown in seen.items():
    print(f"{name:7} sees data:", open(f"{shown}/data").read())
stacks.layers({"one": f"{place}/one", "snapshot": kept, "image": image}, seen["one"])

# %%
# %look_back clones

# %% [markdown]
# Whoever writes, copies up first: copy-on-write. The price comes later: the base cannot be removed while a clone lies on
# it, and a chain of snapshots of clones of snapshots grows. A *full* clone pays at once, and refers to nothing.
#
# ## Exercise 3: `clone`
#
# ```
# clone(layers: Sequence[str], upper: str, full: bool = False, below: Sequence[str] = ()) -> None
# ```
#
# Make the directory `upper` for another container that begins as what `layers`, the topmost first, show. It will lie
# on the same layers; or, with `full`, on those in `below` only, and then `upper` gets a copy of what `layers` have.
# `merge(layers, target, below)` of `minicontainer.steps.copying` makes the new directory `target` out of several
# layers, as overlayfs would show them above `below`.

# %%
# %%exercise snapshot.clone
import shutil

from minicontainer.steps.copying import merge


def clone(layers, upper, full=False, below=()):
    """Make the directory `upper` for another container that begins as what `layers`, the topmost first, show."""
    # SOLUTION BEGIN
    if full:
        merge(layers, upper, below)
        return
    about = os.stat(layers[0])
    os.mkdir(upper)
    os.chown(upper, about.st_uid, about.st_gid)
    shutil.copystat(layers[0], upper)
    # SOLUTION END


# %%
# %%isolated
from labs.notebook import stacks
from labs.notebook.layers import WHITEOUT, layer, overlay, workshop

place = workshop()
image = layer(f"{place}/image", {"sh": "image", "old": "image"})
older = layer(f"{place}/older", {"data": "older", "more": "older"})
newer = layer(f"{place}/newer", {"data": "newer", "old": WHITEOUT})
clone([newer, older, image], f"{place}/light")
clone([newer, older], f"{place}/full", full=True, below=[image])
shown = overlay([newer, older, image], f"{place}/light")
stacks.layers({"light": f"{place}/light", "newer": newer, "older": older, "image": image}, shown)
stacks.layers({"full": f"{place}/full", "image": image}, overlay([image], f"{place}/full"))

# %% [markdown]
# ## What does the kernel think?
#
# The checks do not ask a clock. They ask for inode numbers: what was copied has new ones. And one of them kills your
# function in the middle, at the moment when it calls `remember`, and looks at the disk.

# %%
# %check 14

# %% [markdown]
# The same from a shell (save the notebook first):
#
# ```
# labs check 14 --subject notebooks/14-snapshots.ipynb
# ```
#
# ## What to take away
#
# | LXC | here | on disk |
# |---|---|---|
# | `lxc-snapshot -n c1` | `minicontainer snapshot c1` | the upper directory gets another name |
# | `lxc-snapshot -n c1 -r snap0` | `minicontainer snapshot restore c1 snap0` | the upper directory becomes an empty one |
# | `lxc-copy -n c1 -N c2 -s` | `minicontainer clone c1 c2` | one more upper directory over the same layers |
# | `lxc-copy -n c1 -N c2` | `minicontainer clone --full c1 c2` | a copy, merged |
#
# - What nobody writes to can be shared; what is shared costs nothing to keep.
# - Make the new, write it down, exchange: in this order a crash finds the old or the new, never half.
#
# ## Going further
#
# - `minicontainer --steps notebooks/ snapshot c1` takes a snapshot with your function.
# - Other file systems share below the level of files: Btrfs and XFS by blocks (`cp --reflink`), ZFS by whole trees. What
#   does a database of 10 GB cost with overlayfs, if it changes one page after the snapshot, and what there?
# - How does one take a snapshot of a container that *runs*? `docs/IMAGES.md`, "While it runs", says what has to stand
#   still and who may hold on to the old root.
