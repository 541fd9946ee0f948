"""What other packages take as they are: retargeting arrays and OpenXR poses."""
