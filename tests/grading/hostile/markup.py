# attack: a diagnosis that is a page of its own: markup, a script, control characters, an ANSI title, bidi overrides,
#   a million letters
# fails: the feedback page escapes all that is not its own, and what cannot be printed is replaced, what is too long
#   cut
# status: graded
# says: script

# %%exercise uts.set_names
def set_names(host, domain=None):
    raise ValueError(
        "</p><script>alert(document.title)</script><img src=x onerror=alert(1)>{{ 7*7 }}\x1b]0;owned\x07\u202e\udcff"
        + "A" * 1_000_000
    )
