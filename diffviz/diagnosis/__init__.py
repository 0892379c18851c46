"""What the numbers of a run mean: thresholds, sentences and findings, one set for all readers.

Read ``verdicts`` first: each arm is judged there at every step.
"""
