"""How good it is: official protocols, and a look during training."""
