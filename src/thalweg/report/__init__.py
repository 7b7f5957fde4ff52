"""What a study found, for people: the plan before it starts, its progress, the summary, the figures, one HTML file."""
