"""What is trained: stages, losses and targets."""
