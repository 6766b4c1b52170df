"""Training: recipes, losses, the pool of augmented chunks and the loop. Needs torch."""
