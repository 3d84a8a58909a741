"""Search spaces: each a module with its Architecture, supernet, presets and closed-form cost."""
