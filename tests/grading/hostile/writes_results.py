# attack: writes its own grade: into the output directory, results.json and the feedback pages, and wherever it may be
#   called from
# fails: none of these places is in the sandbox; what it makes there, under the same names, is memory of the sandbox
# status: graded

# %%exercise uts.set_names
import os

for place in ("@out@", "@out@/feedback", "@submissions@", "@marker@", "@checkout@/tests/checks"):
    os.makedirs(place, exist_ok=True)
    for name in ("grades.csv", "results.json", "writes_results.html", "conftest.py", "test_03_uts.py"):
        with open(f"{place}/{name}", "w") as file:
            file.write("student,lab,points,max,status,reason\nwrites_results,03,10,10,graded,full marks\n")


def set_names(host, domain=None):
    return host
