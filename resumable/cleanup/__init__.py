"""
What is done about jobs and values whose task has ended: the sweep, the listener that starts it, the tidying of Variables.

Runs beside the scheduler, or in a process of its own there. May import anything but `cli`. May be imported by: `cli`, the plugin.
"""
