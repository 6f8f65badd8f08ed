"""How is it drawn? One file for each kind of figure; `panel` is what they share."""
