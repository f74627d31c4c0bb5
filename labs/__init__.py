"""The course: its labs, its notebooks and its grader."""
