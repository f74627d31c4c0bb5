"""The autograder: what the kernel says of a container that a student's functions have made.

checks         what a check is: points, a title, the exercise it is about, and the ways to fail
submission     the exercises that somebody handed in, as text
classroom      what is laid out in a sandbox: our package without the reference of the lab, and a busybox
sandbox        one of our own containers, in which alone a submission's code ever runs; `inside` is its process 1
observed       a process as the kernel shows it from outside, and its `files`
subject        what a check is given: start a container, perform a function, look
examination    one submission: a subject for each check, and a sandbox as long as it is of use
pytest_plugin  pytest runs the checks, and `records` are kept; `examine` does so for one submission
grade          does so for a class, and `feedback` writes a page for each student
"""
