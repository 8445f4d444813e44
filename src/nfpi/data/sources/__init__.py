"""Sources of data sets: one module for published ones, one for image folders, and one for the files of both."""
