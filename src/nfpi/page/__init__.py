"""The page of results, results/{preset}/index.html."""
