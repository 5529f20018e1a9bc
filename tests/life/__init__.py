"""
Generators of ordinary life: what happens to a task is drawn, and what must hold is said in words of who uses it.

`invariants`: what must hold. `script`: a history that broke something, as a script that a person can read and that runs by
itself.
"""
