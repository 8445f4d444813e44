# Snakemake's --sdm conda runs this in the environment that it has made of environment.yml, from the root of the clone.
pip install --no-deps --editable .
