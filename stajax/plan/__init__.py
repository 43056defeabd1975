"""What training and inference cost on hardware that need not be present; `stajax.plan.__main__` is the command."""
