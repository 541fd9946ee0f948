"""What is behind people and what lights them."""
