"""Names of pictures by the network that a search found: ``predict.py OUTPUT_FOLDER IMAGE ...``."""

from raysearch.cli import predict

if __name__ == "__main__":
    predict()
