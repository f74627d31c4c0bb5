# mutant: handles only the rights that some rule mentions; the others nobody is refused
# loses: test_rights
# diagnosis: a right that the set does not \*handle\* is not refused

# %%exercise landlock.restrict_paths
import stat

from minicontainer.linux.landlock import (
    FILE_RIGHTS,
    LANDLOCK_RULE_PATH_BENEATH,
    LandlockPathBeneathAttr,
    LandlockRulesetAttr,
    handled_fs,
    landlock_abi,
    landlock_add_rule,
    landlock_create_ruleset,
    landlock_restrict_self,
)
from minicontainer.steps.landlock import RIGHTS


def restrict_paths(rules):
    known = handled_fs(landlock_abi())
    masks = dict.fromkeys(rules, 0)
    for path, words in rules.items():
        for word in words.split() if isinstance(words, str) else words:
            masks[path] |= RIGHTS[word] & known
    handled = 0
    for mask in masks.values():
        handled |= mask
    ruleset = landlock_create_ruleset(LandlockRulesetAttr(handled, 0, 0))
    for path, mask in masks.items():
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        if not stat.S_ISDIR(os.fstat(place).st_mode):
            mask &= FILE_RIGHTS
        landlock_add_rule(ruleset, LANDLOCK_RULE_PATH_BENEATH, LandlockPathBeneathAttr(mask, place))
    landlock_restrict_self(ruleset)
    return landlock_abi()
