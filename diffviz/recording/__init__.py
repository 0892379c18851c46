"""From steps to a run.

A recorder folds the steps of a block of samples into statistics; blocks add up; the sum becomes a
``Run``, one labelled dataset that is saved as one file. Read ``record`` first, then ``run``.
"""
