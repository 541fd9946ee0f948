"""From linear light to the picture that a camera stores."""
