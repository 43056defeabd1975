"""The style sheet that the pages of trainings, evaluations and comparisons share."""

from importlib import resources

from markupsafe import Markup


def page_style() -> Markup:
  """Returns the rules of `page.css`, for an element `style`."""
  return Markup(resources.files("stajax.report").joinpath("page.css").read_text(encoding="utf-8"))
