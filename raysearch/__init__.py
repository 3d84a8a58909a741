"""Architecture search for vision transformers on Ray."""
