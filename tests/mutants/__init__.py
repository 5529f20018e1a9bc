"""
Planted faults, and whether the generators find them: ``python3 dev.py mutants [--only NAME ...] [--seeds N] [--list]``.

`catalog`: the list. A mutant is a text of one file of `resumable` that is replaced by another, in a copy of the tree. It is
caught if one of the generators that are named beside it fails at its default budget, with each of the seeds.
"""
