"""The live dashboard: a small server over one store, and the page that it serves. `thalweg serve` starts it."""
