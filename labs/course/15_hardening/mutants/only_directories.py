# mutant: wants to read directories, and make files, in what is a file
# loses: test_rights
# diagnosis: EINVAL

# %%exercise landlock.restrict_paths
from minicontainer.linux.landlock import (
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
    ruleset = landlock_create_ruleset(LandlockRulesetAttr(known, 0, 0))
    for path, words in rules.items():
        mask = 0
        for word in words.split() if isinstance(words, str) else words:
            mask |= RIGHTS[word] & known
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        landlock_add_rule(ruleset, LANDLOCK_RULE_PATH_BENEATH, LandlockPathBeneathAttr(mask, place))
    landlock_restrict_self(ruleset)
    return landlock_abi()
