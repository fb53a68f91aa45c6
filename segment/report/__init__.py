"""The report of a run: figures, terminal, Markdown, CSV, HTML, pictures and exports."""
