"""What training and inference cost on hardware that need not be there; `stajax.plan.__main__` is the command."""
