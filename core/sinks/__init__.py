"""Where a run can be followed beside its own folder: each sink is a module that imports its package when a run asks for it."""
