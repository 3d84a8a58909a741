"""What a user runs, one module each: search, validate, compare, export; and the phases that a search consists of."""
