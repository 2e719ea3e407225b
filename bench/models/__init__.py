"""Small trained models of other architectures than the bundled one's, for measuring, and the script that trained them."""
