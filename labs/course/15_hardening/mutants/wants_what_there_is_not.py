# mutant: asks the kernel for everything that was asked of it
# loses: test_unknown
# diagnosis: what cannot be had is left out

# %%exercise capabilities.drop_capabilities
from minicontainer.linux.capabilities import (
    Capabilities,
    cap_ambient_clear_all,
    cap_ambient_raise,
    capbset_drop,
    capset,
    in_bounding_set,
    mask_of,
)


def drop_capabilities(bounding, effective, permitted, inheritable, ambient):
    number = 0
    while (there := in_bounding_set(number)) is not None:
        if there and not mask_of(bounding) >> number & 1:
            capbset_drop(number)
        number += 1
    capset(Capabilities(mask_of(effective), mask_of(permitted), mask_of(inheritable)))
    cap_ambient_clear_all()
    for one in range(number):
        if mask_of(ambient) >> one & 1:
            cap_ambient_raise(one)
