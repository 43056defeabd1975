"""What training and inference cost on hardware that is not there; `stajax.plan` is the command."""
