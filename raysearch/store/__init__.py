"""What stays on disk: the output folder, its journal, its table of candidates. Files are whole or not there."""
