"""What produces the weights: generated hands, datasets, losses, the loop and evaluation."""
