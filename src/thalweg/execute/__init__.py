"""Where tasks are carried out: worker processes on this machine."""
