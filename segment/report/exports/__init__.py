"""Exports of the masks of a run for other tools: a module a format, behind the interface of `writers`."""
