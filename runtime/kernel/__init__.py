"""ctypes wrappers, one man-page family a file."""
