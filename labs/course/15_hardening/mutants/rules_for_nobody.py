# mutant: makes the rules, and does not restrict itself to them
# loses: test_beneath, test_rights
# diagnosis: landlock_restrict_self|a right that the set does not

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
)
from minicontainer.steps.landlock import RIGHTS


def restrict_paths(rules):
    known = handled_fs(landlock_abi())
    ruleset = landlock_create_ruleset(LandlockRulesetAttr(known, 0, 0))
    for path, words in rules.items():
        mask = 0
        for word in words.split() if isinstance(words, str) else words:
            mask |= RIGHTS[word] & known
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        if not stat.S_ISDIR(os.fstat(place).st_mode):
            mask &= FILE_RIGHTS
        landlock_add_rule(ruleset, LANDLOCK_RULE_PATH_BENEATH, LandlockPathBeneathAttr(mask, place))
    return landlock_abi()
