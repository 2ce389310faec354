"""What one network is: its layers, and the shapes and values of one run."""
