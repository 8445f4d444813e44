"""The page of results: results/{preset}/index.html, made from what is there."""
