"""What is worth running: predictions made before compute is spent."""
