"""AutoFormer (ICCV 2021): the entangled vision transformer space."""
