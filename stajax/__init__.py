"""Where people look in videos with sound, learned from category tags instead of eye tracking."""

__version__ = "0.1.0"
