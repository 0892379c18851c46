"""What the numbers of a run mean: thresholds, findings and sentences, one set for all readers.

Read ``findings`` first.
"""
