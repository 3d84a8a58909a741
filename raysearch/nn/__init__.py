"""Layers whose leading rows and columns serve every subnet."""
