"""What runs on a machine: a file for each service, and what makes a manifest of them. It reads templates, no more."""
