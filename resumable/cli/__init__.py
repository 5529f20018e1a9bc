"""
The command: what an on-call engineer and the owner of a deployment ask, beside the scheduler. See docs/operating.md.

May import: anything but `operators`. May be imported by: ``python -m resumable`` alone.
"""
