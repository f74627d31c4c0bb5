# mutant: takes the first image of a layout, whatever it is called
# loses: test_resolve
# diagnosis: gave another one

# %%exercise layout.resolve
import hashlib
import json


def resolve(layout, reference, platform="linux/amd64"):
    """What the image `reference` in the directory `layout` is made of: the descriptors of its configuration and of its
    layers, from the bottom up."""
    with open(f"{layout}/index.json", "rb") as file:
        document = json.load(file)
    found = document["manifests"]
    while "layers" not in document:
        system, architecture = platform.split("/")
        wanted = {"os": system, "architecture": architecture}
        chosen = next(one for one in found if one.get("platform", wanted) == wanted)
        digest = chosen["digest"].removeprefix("sha256:")
        with open(f"{layout}/blobs/sha256/{digest}", "rb") as file:
            raw = file.read()
        if hashlib.sha256(raw).hexdigest() != digest:
            raise ValueError(f"what lies there is not sha256:{digest}")
        document = json.loads(raw)
        found = document.get("manifests", [])
    return [document["config"], *document["layers"]]
