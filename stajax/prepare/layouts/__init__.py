"""Readers of data sets as they are published, each of which turns a folder into a `stajax.prepare.listing.Listing`."""
