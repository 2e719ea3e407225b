"""Text that the 16-bit model writes itself, to calibrate and to measure on where nobody brings any: arXiv 2410.17170 calls it self-calibration."""
