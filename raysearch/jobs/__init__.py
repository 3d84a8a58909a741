"""What a user runs, one module each: search, validate, compare, export, ui; and the phases that a search consists of."""
