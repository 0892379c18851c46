"""From steps to a run.

A `recorder` folds the steps of a block of samples into `statistics`; a `block` is a monoid, so
blocks add up wherever they were computed; `dataset` names the sum and sets beside each curve what
q(x_t) says (`references`). A `run` is that one labelled dataset, saved as one file. Read `record`
first.
"""
