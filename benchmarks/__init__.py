"""What the project costs beside its peers: each benchmark measures both sides in one run, in turns.

`make bench`, or ``python -m benchmarks [warm_start] [groups] [shell_start] [networks] [throughput]
[stats] [grading]``.
"""
