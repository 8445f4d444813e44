"""Tables written as csv, Markdown, LaTeX and HTML."""
