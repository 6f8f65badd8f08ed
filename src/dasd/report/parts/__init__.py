"""What is every page made of? Layout, style, drawing and rendering."""
