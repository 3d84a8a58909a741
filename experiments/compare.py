"""Two or more finished searches side by side: ``compare.py RUN RUN ...``, each an output folder or an MLflow run id."""

from raysearch.cli import compare

if __name__ == "__main__":
    compare()
