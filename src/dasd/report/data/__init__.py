"""What is there? Files of a run, figures and their names: numbers and texts, nothing drawn."""
