"""Readers of the layouts that data sets come in: a folder to a `stajax.prepare.listing.Listing`, nothing is decoded."""
