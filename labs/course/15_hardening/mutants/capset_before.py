# mutant: gives CAP_SETPCAP away first, and cannot limit the bounding set any more
# loses: test_sets, test_program, test_unknown
# diagnosis: EPERM

# %%exercise capabilities.drop_capabilities
from minicontainer.linux.capabilities import (
    Capabilities,
    cap_ambient_clear_all,
    cap_ambient_raise,
    capbset_drop,
    capget,
    capset,
    in_bounding_set,
    mask_of,
)


def drop_capabilities(bounding, effective, permitted, inheritable, ambient):
    may = mask_of(permitted) & capget().permitted
    passed_on = mask_of(inheritable) & mask_of(bounding) & capget().permitted
    capset(Capabilities(mask_of(effective) & may, may, passed_on))
    cap_ambient_clear_all()
    number = 0
    while (there := in_bounding_set(number)) is not None:
        if mask_of(ambient) & may & passed_on & 1 << number:
            cap_ambient_raise(number)
        if there and not mask_of(bounding) >> number & 1:
            capbset_drop(number)
        number += 1
