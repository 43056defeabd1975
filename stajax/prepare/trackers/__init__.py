"""Readers of what eye trackers export: each turns files into the fixations of videos, one table for each video."""
