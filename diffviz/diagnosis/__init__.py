"""What the numbers of a run mean: thresholds, sentences and findings, one set for all readers.

Read ``verdicts`` first: every number is judged there, and only there.
"""
