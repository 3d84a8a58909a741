"""What a user runs, one module each: search, validate, compare, export, predict, ui; and the phases of a search."""
