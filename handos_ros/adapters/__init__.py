"""What other packages take as they are: retargeting arrays, OpenXR poses, detections."""
