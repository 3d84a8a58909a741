"""A subnet of a finished search as files for timm, PyTorch and onnxruntime: ``export.py OUTPUT_FOLDER``."""

from raysearch.cli import export

if __name__ == "__main__":
    export()
