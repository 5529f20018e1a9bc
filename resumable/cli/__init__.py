"""The command: what an on-call engineer and the owner of a deployment ask, beside the scheduler. See docs/operating.md."""
