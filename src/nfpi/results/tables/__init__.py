"""Tables of metrics over seeds: rows, values, comparison with the best row, notes and layout."""
