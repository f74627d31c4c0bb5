# attack: looks for the solution: imports and inspects the reference, goes through all objects, and greps every file;
#   runs it if found
# fails: the reference of the lab in question is in no file and no memory of the sandbox: there is a stub in its place
# status: graded
# says: nothing found

# %%exercise uts.set_names
import gc
import glob
import inspect
import os
import re
import types

BODY = re.compile(rb"def set_names\((?:(?!\ndef |\nclass ).)*?sethostname\(host\)", re.DOTALL)


def loot():
    """Everything readable that could have it, as (where, source)."""
    import minicontainer.steps as steps
    import minicontainer.steps.uts as uts

    functions = [uts.set_names, steps.Steps.set_names, steps.Steps().set_names]
    functions += [thing for thing in gc.get_objects() if getattr(thing, "__name__", None) == "set_names"]
    for function in functions:
        if function is not set_names and isinstance(function, types.FunctionType):
            yield "a source", inspect.getsource(function).encode()
            if "sethostname" in function.__code__.co_names:
                yield "a function", b"def set_names(host, domain=None): ... sethostname(host)"
    places = [
        "/classroom",
        "/run",
        "/etc",
        "/tmp",
        "/dev/shm",
        "/root",
        "/home",
        "/work",
        "/var",
        "/srv",
        "/opt",
        "@checkout@",
        "@submissions@",
        "@out@",
    ]
    places += glob.glob("/usr/*/python3*/*-packages/*container*") + glob.glob("/usr/**/labs", recursive=False)
    for place in places:
        for directory, _, names in os.walk(place):
            for name in names:
                try:
                    with open(f"{directory}/{name}", "rb") as file:
                        yield f"{directory}/{name}", file.read(1 << 20)
                except OSError:
                    pass


def set_names(host, domain=None):
    for where, text in loot():
        if BODY.search(text) or b"@secret@" in text:
            raise RuntimeError(f"found in {where}: {text[:200]!r}")
    raise RuntimeError("nothing found")
